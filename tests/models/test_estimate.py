"""What is told of a model before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from aifeedback.models._estimate import Estimate, count_parameters
from aifeedback.models.sd import estimate, load


def test_of_a_folder_it_is_what_loading_finds(tiny_pipeline: Path) -> None:
    family = load(str(tiny_pipeline))
    parameters = sum(p.numel() for p in family.denoiser.parameters())
    assert estimate(str(tiny_pipeline)) == (parameters, family.default_size) == (parameters, (16, 16))


def test_files_that_are_split_are_counted_together(tiny_pipeline: Path, tmp_path: Path) -> None:
    tensors = list(load_file(tiny_pipeline / "unet" / "diffusion_pytorch_model.safetensors").items())
    for number, part in enumerate((tensors[:5], tensors[5:]), 1):
        save_file(dict(part), tmp_path / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
    assert count_parameters(tmp_path) == count_parameters(tiny_pipeline / "unet")


def test_of_the_hub_only_some_are_known() -> None:
    assert estimate("stable-diffusion-v1-5/stable-diffusion-v1-5") == (859_520_964, None)
    assert estimate("owner/name") == (None, None)


def test_a_folder_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert estimate(str(tmp_path)) == (None, None)
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"sample_size": 8}))
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"no header")
    assert estimate(str(tmp_path)) == (None, None)


def test_what_training_holds_in_memory() -> None:
    model = Estimate(10, None)
    assert model.training_bytes(full=False, averages=True) == 40, "the frozen weights"
    assert model.training_bytes(full=True, averages=False) == 200, "weights, gradients, two moments, the reference"
    assert model.training_bytes(full=True, averages=True) == 240
    assert Estimate(None, None).training_bytes(full=True, averages=True) is None
