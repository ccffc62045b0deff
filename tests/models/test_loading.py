"""Folders whose files lack tensors, and networks that this family cannot feed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aifeedback.errors import WeightsError
from aifeedback.models import Part
from aifeedback.models.sd import load

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
Weights = dict[str, torch.Tensor]


def altered(pipeline: Path, folder: Path, file: str, change: Callable[[Weights], Weights]) -> Path:
    """A copy of a pipeline with other tensors in one of its files."""
    shutil.copytree(pipeline, folder)
    save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})
    return folder


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


@pytest.mark.parametrize(
    ("file", "change", "missing"),
    [
        (
            TEXT,
            without("mlp.fc1"),
            r"text_encoder: its files lack 2 of \d+ tensors: \S*mlp\.fc1\.bias, \S*mlp\.fc1\.weight$",
        ),
        (VAE, without("decoder.conv_out"), r"vae: its files lack 2 of \d+ tensors: decoder\.conv_out\.bias"),
        (
            UNET,
            without("time_embedding"),
            r"unet: its files lack 4 of \d+ tensors: time_embedding\.linear_1\.bias, .*\.\.\.$",
        ),
        (
            UNET,
            lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
            r"lack (\d+) of \1 tensors",
        ),
    ],
)
def test_missing_tensors_are_named(
    tiny_pipeline: Path, tmp_path: Path, file: str, change: Callable[[Weights], Weights], missing: str
) -> None:
    folder = altered(tiny_pipeline, tmp_path / "model", file, change)
    with pytest.raises(WeightsError, match=missing):
        load(str(folder))


@pytest.mark.parametrize(("file", "name"), [(TEXT, "fc1.bias"), (UNET, "conv_in.bias")])
def test_tensors_of_another_shape_are_named(tiny_pipeline: Path, tmp_path: Path, file: str, name: str) -> None:
    def shorter(weights: Weights) -> Weights:
        return {key: weight[:-1].clone() if key.endswith(name) else weight for key, weight in weights.items()}

    with pytest.raises(WeightsError, match=name):
        load(str(altered(tiny_pipeline, tmp_path / "model", file, shorter)))


def test_a_component_without_files_of_the_variant_is_loaded_from_its_plain_ones(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline, folder)
    (folder / UNET).rename(folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    ours, plain = load(str(folder), variant="fp16"), load(str(tiny_pipeline))
    for name, weight in plain.denoiser.state_dict().items():
        assert torch.equal(ours.denoiser.state_dict()[name], weight)


def test_what_is_of_another_library_is_not_imported(tiny_pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["this", "Zen"]}))
    with pytest.raises(WeightsError, match="unet is of this, expected diffusers or transformers"):
        load(str(folder))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"time_cond_proj_dim": 16}, "time_cond_proj_dim"),
        ({"num_class_embeds": 5}, "num_class_embeds"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"in_channels": 9}, "9 channels in and 4 out, expected 4 as of its latents"),
        ({"out_channels": 8}, "4 channels in and 8 out, expected 4 as of its latents"),
    ],
)
@pytest.mark.parametrize("parts", [["text"], ["denoiser"]])
def test_a_network_with_other_inputs_is_refused_at_load(
    tiny_pipeline: Path, tmp_path: Path, settings: dict[str, object], what: str, parts: list[Part]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(WeightsError, match=f"unet.*{what}"):
        load(str(folder), parts=parts)
