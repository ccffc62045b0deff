"""Prompts and a model family in, candidates out.

Batches run across prompts: one flat list of requests is cut into micro-batches, so that the device is full whatever
the number of candidates per prompt. Each prompt is encoded once. Images are encoded to files in threads while the
next batch samples. Which noise an image starts from depends on its own seed alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from aifeedback.errors import WeightsError
from aifeedback.models import Family, Sampling, encode_in_batches
from aifeedback.models._pixels import to_uint8
from aifeedback.records import Candidate, Prompt
from aifeedback.seeds import derive_seed

if TYPE_CHECKING:
    from aifeedback.recipe import Generate

ENCODERS = 2
"""Threads that encode images. Pillow leaves the interpreter's lock while it compresses."""
_ENCODE_OPTIONS = {"png": {"compress_level": 4}, "jpeg": {"quality": 95, "subsampling": 0}, "webp": {"quality": 95}}
_TEXT_BATCH = 64


@dataclass(frozen=True)
class Request:
    """One image to sample: candidate `index` of a prompt from the noise of `seed`."""

    prompt: Prompt
    index: int
    seed: int


def default_micro_batch(width: int, height: int, device: str, cost: int = 1, most: int | None = None) -> int:
    """Items at a time: a function of their size and the kind of device alone, for the last bits depend on it.

    Args:
        width, height: of an image, in pixels.
        device: "cuda" in front makes eight times as many.
        cost: memory of an item, in that of an image that is sampled.
        most: a lower limit than that of sampling.
    """
    pixels, limit = (1 << 21, 64) if device.startswith("cuda") else (1 << 18, 32)
    return max(1, min(limit if most is None else most, pixels // (width * height * cost)))


def requests_of(prompts: Sequence[Prompt], candidates: int, seed: int, purpose: str = "candidate") -> list[Request]:
    """`candidates` images of each prompt, each with its own seed derived from the run's seed and the prompt's id."""
    return [
        Request(prompt, index, derive_seed(seed, purpose, prompt.id, index))
        for prompt in prompts
        for index in range(candidates)
    ]


def noise_of(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Unit noise (N, *shape), float32: `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))`."""
    return torch.stack([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])


def sample_candidates(
    family: Family,
    requests: Sequence[Request],
    settings: Generate,
    micro_batch: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Candidate]:
    """Sample all requests, in their order.

    Args:
        family: a loaded model.
        requests: prompts may repeat; each text is encoded once.
        settings: how they are sampled and stored; sizes of None are the model's.
        micro_batch: images at a time; None: by size and device.
        advance: told the number of images after each batch.

    Returns:
        Candidates. A black, constant, non-finite or flagged image is there with its reason in `rejected`.
    """
    width, height = settings.width or family.default_size[0], settings.height or family.default_size[1]
    shape = family.latent_shape(width, height)
    size = micro_batch or default_micro_batch(width, height, str(next(family.denoiser.parameters()).device))
    prompts = list({request.prompt.id: request.prompt for request in requests}.values())
    rows = {prompt.id: row for row, prompt in enumerate(prompts)}
    text = encode_in_batches(family, [prompt.text for prompt in prompts], _TEXT_BATCH)
    guided = family.guided(settings.guidance)
    negative = family.encode_text([settings.negative_prompt], negative=True).conditioning if guided else None
    how = Sampling(settings.scheduler, settings.steps, settings.guidance)
    candidates: list[Candidate] = []
    with ThreadPoolExecutor(ENCODERS) as pool:
        waiting: list[list[Future[Candidate]]] = []
        for batch in _batches(requests, size):
            seeds = [request.seed for request in batch]
            chosen = [rows[request.prompt.id] for request in batch]
            conditioning = {name: values[chosen] for name, values in text.conditioning.items()}
            latents = family.sample(conditioning, negative, noise_of(seeds, shape), how, seeds)
            pixels = family.decode_pixels(latents)
            truncated = [text.truncated[row] for row in chosen]
            waiting.append(_submit(pool, family, batch, latents, pixels, settings, truncated))
            if len(waiting) > 1:
                candidates += [future.result() for future in waiting.pop(0)]
            advance(len(batch))
        candidates += [future.result() for batch_futures in waiting for future in batch_futures]
    return candidates


def _batches(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]


def _submit(
    pool: ThreadPoolExecutor,
    family: Family,
    batch: Sequence[Request],
    latents: Tensor,
    pixels: Tensor,
    settings: Generate,
    truncated: Sequence[int],
) -> list[Future[Candidate]]:
    """Hand a sampled batch to the encoding threads."""
    images = to_uint8(pixels)
    finite = (pixels.isfinite().flatten(1).all(1) & latents.isfinite().flatten(1).all(1)).tolist()
    flagged = family.flags(images) if settings.safety == "reject" else [False] * len(batch)
    if len(flagged) != len(batch):
        raise WeightsError(f"{family.identity}: the safety checker gave {len(flagged)} answers to {len(batch)} images")
    kept = latents.half().cpu() if settings.keep_latents else None
    futures = []
    for row, request in enumerate(batch):
        reason = rejection(images[row], finite[row], flagged[row])
        latent = None if kept is None or reason == "non-finite" else kept[row]
        cut = truncated[row]
        futures.append(pool.submit(_candidate, request, images[row], latent, family.identity, reason, cut, settings))
    return futures


def rejection(image: Tensor, finite: bool, flagged: bool) -> str | None:
    """Why an image (H, W, 3) uint8 may not enter a pair, or None."""
    low, high = int(image.min()), int(image.max())
    if not finite:
        return "non-finite"
    if high == 0:
        return "black"
    if low == high or bool((image == image[0, 0]).all()):
        return "constant"
    return "safety" if flagged else None


def _candidate(
    request: Request,
    image: Tensor,
    latent: Tensor | None,
    model: str,
    rejected: str | None,
    truncated: int,
    settings: Generate,
) -> Candidate:
    return Candidate(
        prompt_id=request.prompt.id,
        prompt=request.prompt.text,
        index=request.index,
        seed=request.seed,
        image=encode_image(image, settings.image_format),
        width=image.shape[1],
        height=image.shape[0],
        model=model,
        latent=None if latent is None else latent.numpy().tobytes(),
        latent_shape=None if latent is None else tuple(latent.shape),
        rejected=rejected,
        truncated=truncated,
    )


def encode_image(image: Tensor, image_format: str) -> bytes:
    """An image (H, W, 3) uint8 as the bytes of a file: the same bytes for the same image."""
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, format=image_format, **_ENCODE_OPTIONS[image_format])
    return buffer.getvalue()
