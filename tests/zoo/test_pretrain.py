"""The pretraining programs run, resume to the same weights, and write what plain diffusers loads."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from aifeedback.zoo import denoiser, pretrain, vocabulary
from aifeedback.zoo.trainer import Plan, train


def test_a_run_cut_short_and_repeated_ends_with_the_same_weights(tmp_path: Path) -> None:
    def fresh() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(4, 1)

    def run(folder: Path, stop_at: int | None = None) -> Tensor:
        module = fresh()

        def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
            calls.append(count)
            if stop_at is not None and len(calls) > stop_at:
                raise KeyboardInterrupt
            x = torch.randn(count, 4) + rng.random()
            return (module(x) - x.sum(1, keepdim=True)).square().mean(), {}

        calls: list[int] = []
        plan = Plan(steps=12, batch=3, peak_lr=1e-2, save_every_seconds=0.0)
        train(module, loss_of, plan, folder)
        return module.weight.detach().clone()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at=5)
    assert torch.equal(run(tmp_path / "cut"), whole)
    assert not torch.equal(whole, fresh().weight)


@pytest.mark.slow
def test_the_program_writes_a_pipeline_that_diffusers_loads(tmp_path: Path, monkeypatch: Any) -> None:
    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(denoiser.pretrain, "__defaults__", (denoiser.PLAN, 64))
    out = tmp_path / "out"
    for part in ("autoencoder", "denoiser"):
        arguments = [part, "--work", str(tmp_path / "work"), "--out", str(out), "--steps", "2", "--device", "cpu"]
        result = CliRunner().invoke(pretrain.main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert not [path for path in out.rglob("*.json") if str(tmp_path) in path.read_text()], "names a folder"
    pipe = StableDiffusionPipeline.from_pretrained(out / "shapes")
    pipe.set_progress_bar_config(disable=True)
    noise = torch.zeros(1, 12, 8, 8)
    image = pipe("a red circle on a white background", latents=noise, num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    assert pipe.scheduler.config.prediction_type == "v_prediction"


def test_the_bank_pairs_latents_with_what_their_captions_say(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    from aifeedback.zoo import naming, scenes, weights_folder

    vae = AutoencoderKL.from_pretrained(weights_folder("shapes") / "vae").float()
    tokenizer = vocabulary.build_tokenizer(tmp_path, denoiser.CONTEXT)
    latents, ids, named, scaling = denoiser.make_bank(vae, tokenizer, 8, seed=0)
    assert latents.shape == (8, 12, 8, 8) and latents.std().item() == pytest.approx(1.0, abs=1e-3) and scaling > 0
    for row, said in zip(ids.flatten(0, 1), named.flatten(0, 1), strict=True):
        scene = scenes.parse(tokenizer.decode(row, skip_special_tokens=True))
        assert scene is not None and torch.equal(naming.labels([scene])[0], said)
    assert all(not torch.equal(right, wrong) for right, wrong in ids)
