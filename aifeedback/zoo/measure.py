"""Measure the embedded models: `python -m aifeedback.zoo.measure [reader|base|judge|all]`.

reader: how often the ground truth (`reading`) calls a real render exact, directly and through the autoencoder.
base: exact and mean score of the generator by split, with accuracy by factor.
judge: how often the learned judge agrees with the ground truth on pairs of the generator's samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from aifeedback import zoo
from aifeedback.records import Prompt
from aifeedback.seeds import derive_seed
from aifeedback.zoo import reading, scenes

SPLITS: tuple[scenes.Split, ...] = ("train", "validation", "heldout")


def load_pipeline() -> Any:
    """The embedded generator as plain diffusers loads it."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(zoo.weights_folder("shapes")).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def through_autoencoder(pipe: Any, pictures: list[Image.Image]) -> list[Image.Image]:
    """Encode (a draw of the posterior) and decode pictures."""
    x = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float() / 127.5 - 1
    generator = torch.Generator().manual_seed(0)
    y = pipe.vae.decode(pipe.vae.encode(x).latent_dist.sample(generator=generator)).sample
    back = ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a) for a in back]


def reader(pipe: Any, count: int) -> Iterator[str]:
    """Accuracy of the ground truth on real renders."""
    for split in SPLITS:
        rng = random.Random(f"measure/{split}")
        drawn = [scenes.random_scene(rng, split) for _ in range(count)]
        pictures = [scenes.render(s, rng) for s in drawn]
        coded = through_autoencoder(pipe, pictures)
        direct = np.mean([reading.exact(s, reading.read(p)) for s, p in zip(drawn, pictures, strict=True)])
        after = np.mean([reading.exact(s, reading.read(p)) for s, p in zip(drawn, coded, strict=True)])
        yield f"reader  {split:10}  renders {count}  exact {direct:.1%}  through the autoencoder {after:.1%}"


def samples(
    pipe: Any, split: str, prompts: int, each: int, steps: int, guidance: float
) -> Iterator[tuple[str, list[Image.Image]]]:
    """The generator's pictures of a split's first prompts, `each` per prompt."""
    for start in range(0, prompts, 16):
        texts = (zoo.prompts_file(split).read_text().splitlines())[start : min(start + 16, prompts)]
        seeds = [derive_seed(0, "measure", Prompt(t).id, i) for t in texts for i in range(each)]
        shape = (pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        repeated = [t for t in texts for _ in range(each)]
        images = pipe(repeated, latents=noise, num_inference_steps=steps, guidance_scale=guidance).images
        for i, text in enumerate(texts):
            yield text, images[i * each : (i + 1) * each]


def base(pipe: Any, prompts: int, each: int, steps: int, guidance: float) -> Iterator[str]:
    """Accuracy of the generator by split and factor."""
    for split, name in zip(SPLITS, ("align", "validation", "heldout"), strict=True):
        exact, mean, factors = [], [], dict.fromkeys(reading.FACTORS, (0, 0))
        for text, images in samples(pipe, name, prompts, each, steps, guidance):
            scene = scenes.parse(text)
            assert scene is not None
            for image in images:
                seen = reading.read(image)
                exact.append(reading.exact(scene, seen))
                mean.append(reading.fraction(scene, seen))
                for factor, right in reading.facts(scene, seen).items():
                    factors[factor] = (factors[factor][0] + right, factors[factor][1] + 1)
        shown = "  ".join(f"{k} {right / max(n, 1):.1%}" for k, (right, n) in factors.items())
        yield f"base  {split:10}  images {len(exact)}  exact {np.mean(exact):.1%}  mean {np.mean(mean):.3f}  {shown}"


def judge(pipe: Any, prompts: int, each: int, steps: int, guidance: float) -> Iterator[str]:
    """Pair accuracy of the learned judge against the ground truth, over pairs the ground truth tells apart."""
    from aifeedback.scorers.clip import load

    scorer = load(device="cpu", weights="builtin:shapes-clip")
    right = total = 0
    for text, images in samples(pipe, "align", prompts, each, steps, guidance):
        scene = scenes.parse(text)
        assert scene is not None
        truth = [reading.fraction(scene, reading.read(image)) for image in images]
        scores = scorer.score([scorer.prepare(image) for image in images], scorer.embed([text]) * len(images))
        for i, j in combinations(range(len(images)), 2):
            if truth[i] != truth[j]:
                total += 1
                right += (scores[i] > scores[j]) == (truth[i] > truth[j])  # type: ignore[operator]
    yield f"judge  pairs {total}  agrees with the ground truth on {right / max(total, 1):.1%}"


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(["reader", "base", "judge", "all"]), default="all")
@click.option("--count", default=500, help="Renders per split.")
@click.option("--prompts", default=150, help="Prompts per split.")
@click.option("--each", default=4, help="Images per prompt.")
@click.option("--steps", default=15, help="Sampling steps.")
@click.option("--guidance", default=2.0, help="Guidance scale.")
def main(what: str, count: int, prompts: int, each: int, steps: int, guidance: float) -> None:
    pipe = load_pipeline()
    lines: list[Iterator[str]] = []
    if what in ("reader", "all"):
        lines.append(reader(pipe, count))
    if what in ("base", "all"):
        lines.append(base(pipe, prompts, each, steps, guidance))
    if what in ("judge", "all"):
        lines.append(judge(pipe, prompts, each, steps, guidance))
    for part in lines:
        for line in part:
            click.echo(line)


if __name__ == "__main__":
    main()
