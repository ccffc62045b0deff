"""Images per second: aifeedback's sampler against a plain one-prompt-at-a-time diffusers loop, same images out.

    OMP_NUM_THREADS=1 python benchmarks/generate.py         # both models, some minutes of one core
    OMP_NUM_THREADS=1 python benchmarks/generate.py --only shapes --prompts 8

Both sides load the same pipeline, start from the same noise and write PNG files into memory. They take turns, and the
best of each is reported, in the process's CPU time. The floor is the time that the FLOPs of the denoiser, decoder and
text encoder would take at the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import flops, rate, seconds

from aifeedback.data import prompts
from aifeedback.models.sd import load
from aifeedback.recipe import Generate
from aifeedback.records import Candidate
from aifeedback.steps._sampling import Request, encode_image, noise_of, requests_of, sample_candidates

TARGETS = {"shapes": 2.0, "unet35m": 1.3}


def plain_loop(pipe: Any, requests: list[Request], settings: Generate, shape: tuple[int, ...]) -> list[bytes]:
    """What a user writes by hand: one call of the pipeline per image."""
    files = []
    for request in requests:
        image = pipe(
            request.prompt.text,
            latents=noise_of([request.seed], shape),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            output_type="np",
        ).images[0]
        files.append(encode_image(torch.from_numpy((image * 255).round().astype(np.uint8)), "png"))
    return files


def unet35m(folder: Path, base: Path) -> Path:
    """A random pipeline for 128 px images: a UNet of 35 million weights, a three-level decoder, base's text encoder."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    pipe = StableDiffusionPipeline.from_pretrained(base)
    torch.manual_seed(0)
    pipe.register_modules(
        unet=UNet2DConditionModel(
            sample_size=32, in_channels=4, out_channels=4, block_out_channels=(128, 256, 320), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=pipe.text_encoder.config.hidden_size, attention_head_dim=8,
        ),
        vae=AutoencoderKL(
            block_out_channels=(32, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, sample_size=128,
        ),
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def compare(name: str, folder: Path, count: int, candidates: int, settings: Generate, repeats: int) -> bool:
    """Run both sides, check that the images agree, print a row; whether the target was met."""
    from diffusers import StableDiffusionPipeline

    ours = load(str(folder))
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ours.make_scheduler(settings.scheduler)
    requests = requests_of(prompts.load("builtin:shapes/validation").prompts[:count], candidates, seed=0)
    shape = ours.latent_shape(*ours.default_size)
    sides: dict[str, Callable[[], Any]] = {
        "ours": partial(sample_candidates, ours, requests, settings),
        "plain": partial(plain_loop, pipe, requests, settings, shape),
    }
    needed = flops(sides["ours"])  # warms up, too
    plain_loop(pipe, requests[:1], settings, shape)
    made, best = in_turns(sides, repeats)
    worst = max(difference(candidate, file) for candidate, file in zip(made["ours"], made["plain"], strict=True))
    fast, slow, floor = best["ours"], best["plain"], needed / rate(torch.float32, "cpu")
    weights = sum(p.numel() for p in ours.denoiser.parameters()) / 1e6
    n, target = len(requests), TARGETS[name]
    print(f"{name:8} {weights:6.1f}M {ours.default_size[0]:4}px {n:4} images  ours {n / fast:7.2f}/s  "
          f"plain {n / slow:7.2f}/s  ratio {slow / fast:5.2f} (target {target})  "
          f"floor {n / floor:7.2f}/s at {needed / n / 1e9:.2f} GFLOP an image  "
          f"worst pixel difference {worst}/255")  # fmt: skip
    if worst > 1:
        raise SystemExit(f"{name}: the images differ by {worst}/255, expected at most 1")
    return slow / fast >= target


def in_turns(sides: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What each side makes, and the best of its times in seconds."""
    made: dict[str, Any] = {}
    times: dict[str, list[float]] = {name: [] for name in sides}

    def make(name: str) -> None:
        made[name] = sides[name]()

    for _ in range(repeats):
        for name, found in times.items():
            found.append(seconds(partial(make, name), "cpu"))
    return made, {name: min(found) for name, found in times.items()}


def difference(candidate: Candidate, file: bytes) -> int:
    """Largest difference of a channel between two image files."""
    one, other = (np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (candidate.image, file))
    return int(abs(one - other).max())


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=sorted(TARGETS))
    parser.add_argument("--weights", default="builtin:shapes", help="a pipeline folder in place of builtin:shapes")
    given = parser.parse_args()
    from aifeedback.data.weights import local_folder

    base = local_folder(given.weights)
    if base is None:
        parser.error("--weights: expected a folder or builtin:<name>")
    settings = Generate(steps=given.steps, guidance=given.guidance)
    print(f"{torch.get_num_threads()} threads, {given.steps} steps, guidance {given.guidance}")
    met = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [given.only] if given.only else list(TARGETS):
            path = base if name == "shapes" else unet35m(Path(folder) / name, base)
            met.append(compare(name, path, given.prompts, given.candidates, settings, given.repeats))
    print("targets met" if all(met) else "targets NOT met")


if __name__ == "__main__":
    main()
