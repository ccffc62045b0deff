"""Make the embedded models: `python -m aifeedback.zoo.pretrain [autoencoder|denoiser|judge|prompts|all]`.

Seeded and resumable: state is kept in --work every two minutes, the finished models are written to --out.
Measure them with `python -m aifeedback.zoo.measure`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aifeedback.zoo import scenes

if TYPE_CHECKING:
    from aifeedback.zoo.trainer import Plan

PROMPTS: dict[str, tuple[scenes.Split, int]] = {
    "align": ("train", 2000),
    "validation": ("validation", 320),
    "heldout": ("heldout", 320),
}
PARTS = ("autoencoder", "denoiser", "judge", "prompts")


def write_prompts(folder: Path) -> None:
    """Write the prompt files of the three splits, one prompt a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (split, count) in PROMPTS.items():
        (folder / f"{name}.txt").write_text("".join(p + "\n" for p in scenes.prompts_of(split, count, seed=0)))


def shorter(plan: Plan, steps: int | None) -> Plan:
    """The plan, with `steps` in place of its own where given."""
    return replace(plan, steps=steps or plan.steps)


def make_generator(work: Path, out: Path, device: str, steps: int | None, part: str) -> None:
    """Train the autoencoder, or (part `denoiser`) the denoiser on the latents of the one in `out`, and write them."""
    import torch
    from diffusers import AutoencoderKL

    from aifeedback.zoo import autoencoder, denoiser, vocabulary

    if part == "autoencoder":
        vae: Any = autoencoder.pretrain(work / "autoencoder", device, shorter(autoencoder.PLAN, steps))
        vae = autoencoder.polish(vae, work / "polish", device, shorter(autoencoder.POLISH, steps))
        vae.to(torch.float16).save_pretrained(out / "shapes" / "vae")
        return
    vae = AutoencoderKL.from_pretrained(out / "shapes" / "vae").float().eval().to(device)
    tokenizer = vocabulary.build_tokenizer(work / "tokenizer", denoiser.CONTEXT)
    model, scaling = denoiser.pretrain(vae, tokenizer, work / "denoiser", device, shorter(denoiser.PLAN, steps))
    pipe = denoiser.assemble(vae, model, tokenizer, scaling)
    pipe.unet.to(torch.float16)
    pipe.vae.to(torch.float16)
    pipe.save_pretrained(out / "shapes")


@click.command(help=__doc__)
@click.argument("part", type=click.Choice((*PARTS, "all")), default="all")
@click.option("--work", type=click.Path(path_type=Path), default=Path("zoo-work"), help="Training state and logs.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "weights", help="Finished models."
)
@click.option("--device", default=None, help="cuda, mps or cpu; default: cuda when there is one.")
@click.option("--steps", type=int, default=None, help="Steps in place of the part's plan.")
@click.option("--threads", type=int, default=None, help="CPU threads.")
def main(part: str, work: Path, out: Path, device: str | None, steps: int | None, threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    for name in PARTS if part == "all" else (part,):
        click.echo(f"{name}: on {device}, state in {work}", err=True)
        if name == "prompts":
            write_prompts(Path(__file__).parent / "prompts")
        elif name == "judge":
            from aifeedback.zoo import judge_model

            judge_model.pretrain(work / "judge", out / "shapes-clip", device)
        else:
            make_generator(work, out, device, steps, name)


if __name__ == "__main__":
    main()
