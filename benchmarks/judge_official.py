"""The loops of the official judges, re-enacted on our networks: same weights, same shape of the work.

What the official packages do per image is repeated here step by step, on transformers' modules in place of theirs
(their FLOPs are the same): hpsv2 1.2.0 `score()`, image-reward 1.5 `inference_rank`, the snippet of PickScore's card.
`aifb verify` is the one that runs the packages themselves.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import normalize

from aifeedback.records import Candidate
from aifeedback.scorers import imagereward

Loop = Callable[[Any, Sequence[Candidate]], list[float]]


@torch.no_grad()
def pickscore(scorer: Any, candidates: Sequence[Candidate]) -> list[float]:
    """`calc_probs` before its softmax: the images of one prompt in one batch, the prompt encoded once for them."""
    network, found = scorer.network, []
    for prompt, images in _by_prompt(candidates):
        pixels = torch.stack([scorer.prepare(image) for image in images]).to(network.device)
        words = network.tokenizer([prompt], padding=True, truncation=True, max_length=77, return_tensors="pt")
        image = _unit(network.model.get_image_features(pixel_values=pixels))
        text = _unit(network.model.get_text_features(**words.to(network.device)))
        found += (network.model.logit_scale.exp() * (text @ image.T)[0]).tolist()
    return found


@torch.no_grad()
def hpsv2(scorer: Any, candidates: Sequence[Candidate]) -> list[float]:
    """`score()` after its checkpoint is loaded: per image, the prompt tokenised to 77 and encoded beside it."""
    network, found = scorer.network, []
    for prompt, images in _by_prompt(candidates):
        for image in images:
            with torch.autocast("cuda", enabled=network.device.startswith("cuda")):
                pixels = scorer.prepare(image).unsqueeze(0).to(network.device)
                words = network.tokenizer(
                    [prompt], padding="max_length", truncation=True, max_length=77, return_tensors="pt"
                ).to(network.device)
                one = _unit(network.model.get_image_features(pixel_values=pixels))
                text = _unit(network.model.get_text_features(**words))
                found += torch.diagonal(one @ text.T).cpu().tolist()
    return found


@torch.no_grad()
def image_reward(scorer: Any, candidates: Sequence[Candidate]) -> list[float]:
    """`inference_rank`: the prompt tokenised once to 35, then image by image through both towers."""
    network, found = scorer.network, []
    for prompt, images in _by_prompt(candidates):
        words = network.tokenizer(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt").to(
            network.device
        )
        for image in images:
            pixels = scorer.prepare(image).unsqueeze(0).to(network.device)
            seen = network.vision(pixel_values=pixels).last_hidden_state
            hidden = network.text(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"], encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
                is_decoder=False,
            ).last_hidden_state[:, 0]  # fmt: skip
            reward = (hidden.cpu().double() @ network.weight + network.bias).item()
            found.append((reward - imagereward.MEAN) / imagereward.DEVIATION)
    return found


LOOPS: dict[str, Loop] = {"pickscore": pickscore, "hpsv2": hpsv2, "imagereward": image_reward}


def checkpoint(scorer: Any, folder: Path) -> Callable[[], None]:
    """What every call of hpsv2's `score()` begins with: read the checkpoint, put it into the model."""
    file = folder / "checkpoint.pt"
    torch.save({"state_dict": scorer.network.model.state_dict()}, file)

    def reload() -> None:
        read = torch.load(file, map_location=scorer.network.device, weights_only=True)
        scorer.network.model.load_state_dict(read["state_dict"])

    return reload


def _by_prompt(candidates: Sequence[Candidate]) -> Iterator[tuple[str, list[Image.Image]]]:
    for prompt, group in groupby(candidates, key=lambda c: c.prompt):
        yield prompt, [Image.open(io.BytesIO(c.image)) for c in group]


def _unit(output: Any) -> torch.Tensor:
    return normalize(getattr(output, "pooler_output", output).float(), dim=-1)
