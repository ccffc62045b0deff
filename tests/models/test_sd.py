"""The Stable Diffusion family: the same images as plain diffusers, and files that plain diffusers reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aifeedback.errors import UsageError, WeightsError
from aifeedback.models import Family, Sampling
from aifeedback.models._sd import LORA_FILE
from aifeedback.models.sd import load
from aifeedback.steps._sampling import noise_of

PROMPT = "a red circle left of a blue star"


@pytest.fixture(scope="module")
def family(tiny_pipeline: Path) -> Family:
    return load(str(tiny_pipeline))


def plain(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)  # no dtype: what a newcomer types
    pipe.set_progress_bar_config(disable=True)
    return pipe


def trainable(family: Family) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in family.denoiser.named_parameters() if weight.requires_grad}


def latents_of(family: Family, guidance: float = 4.0, scheduler: str = "ddim") -> torch.Tensor:
    negative = family.encode_text([""], negative=True).conditioning
    conditioning = family.encode_text([PROMPT]).conditioning
    return family.sample(conditioning, negative, noise_of([7], (4, 8, 8)), Sampling(scheduler, 4, guidance), [7])


@pytest.mark.parametrize("scheduler", ["model", "ddim", "dpm++", "euler", "pndm", "sde-dpm++", "unipc"])
@pytest.mark.parametrize("folder", ["tiny_pipeline", "tiny_v_pipeline"])
def test_plain_diffusers_gives_the_same_image(folder: str, scheduler: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(folder)
    ours, pipe = load(str(path)), plain(path)
    pipe.scheduler = ours.make_scheduler(scheduler)
    for guidance in (4.0, 0.0):
        image = ours.decode(latents_of(ours, guidance, scheduler)).numpy() / 255
        how = {"num_inference_steps": 4, "guidance_scale": guidance, "output_type": "np"}
        seeded = pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(7), **how).images
        assert abs(seeded - image).max() <= 1 / 255
        if scheduler != "sde-dpm++":  # it draws in each step, too
            theirs = pipe(PROMPT, latents=noise_of([7], (4, 8, 8)), **how).images
            assert abs(theirs - image).max() <= 1 / 255


def test_a_scheduler_with_noise_in_each_step_follows_the_seed(tiny_pipeline: Path) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    ours, pipe = load(str(tiny_pipeline)), plain(tiny_pipeline)
    pipe.scheduler = ours.pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator("cpu").manual_seed(7)
    theirs = pipe(PROMPT, generator=generator, num_inference_steps=4, guidance_scale=4.0, output_type="np").images
    assert abs(theirs - ours.decode(latents_of(ours, 4.0, "model")).numpy() / 255).max() <= 1 / 255


def test_long_prompts_are_cut_and_counted(family: Family) -> None:
    text = family.encode_text([PROMPT, "x " * 5000])
    assert {name: rows.shape for name, rows in text.conditioning.items()} == {"prompt_embeds": (2, 16, 16)}
    assert text.truncated == [0, 5000 + 2 - 16]


def test_target_is_what_a_perfect_network_predicts(tiny_pipeline: Path, tiny_v_pipeline: Path) -> None:
    x0, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    for path in (tiny_pipeline, tiny_v_pipeline):
        ours = load(str(path))
        a = plain(path).scheduler.alphas_cumprod[t].view(2, 1, 1, 1)
        x_t, target = ours.process.add_noise(x0, noise, t), ours.process.target(x0, noise, t)
        from_epsilon, from_v = (x_t - (1 - a).sqrt() * target) / a.sqrt(), a.sqrt() * x_t - (1 - a).sqrt() * target
        back = from_epsilon if path == tiny_pipeline else from_v
        assert torch.allclose(back, x0, atol=1e-3)


def test_latents_of_images_depend_on_their_own_seed_alone(family: Family) -> None:
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    both, one = family.encode_images(pixels, [1, 2]), family.encode_images(pixels[1:], [2])
    assert both.shape == (2, *family.latent_shape(16, 16)) and torch.allclose(both[1:], one, atol=1e-5)
    assert family.decode(both).shape == (2, 16, 16, 3)


def test_lora_and_full_weights_reach_plain_diffusers(tiny_pipeline: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    trained = load(str(tiny_pipeline))
    before = latents_of(trained)
    trained.add_lora(2, 4.0, None, seed=1)
    assert torch.equal(latents_of(trained), before)
    for name, weight in trained.denoiser.named_parameters():
        assert weight.requires_grad == ("lora" in name)
        if "lora_B" in name:
            weight.data.fill_(0.2)
    trained.save_lora(tmp_path, trainable(trained))
    after = latents_of(trained)
    again, pipe = load(str(tiny_pipeline)), plain(tiny_pipeline)
    again.load_lora(tmp_path)
    pipe.load_lora_weights(tmp_path)
    how = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent"}
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(latents_of(again), after, atol=1e-5)
    assert torch.allclose(pipe(PROMPT, latents=noise_of([7], (4, 8, 8)), **how).images, after, atol=1e-5)

    full = load(str(tiny_pipeline))
    for weight in full.denoiser.parameters():
        weight.data.mul_(1.1)
    full.save_full(tmp_path / "full", full.denoiser.state_dict())
    again, pipe = load(str(tiny_pipeline)), plain(tiny_pipeline)
    again.load_full(tmp_path / "full")
    pipe.unet = UNet2DConditionModel.from_pretrained(tmp_path / "full" / "unet")
    assert torch.allclose(latents_of(again), latents_of(full), atol=1e-5)
    assert torch.allclose(pipe(PROMPT, latents=noise_of([7], (4, 8, 8)), **how).images, latents_of(full), atol=1e-5)


def test_the_lora_file_has_one_order(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Neither the hash seed of a process nor safetensors decides about a byte of it."""
    trained = load(str(tiny_pipeline))
    trained.add_lora(2, 4.0, None, seed=1)
    trained.save_lora(tmp_path, trainable(trained))
    data = (tmp_path / LORA_FILE).read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode().rstrip()
    found = json.loads(header)
    assert header == json.dumps(found, sort_keys=True, separators=(",", ":"))
    targets = json.loads(found["__metadata__"]["lora_adapter_metadata"])["unet.target_modules"]
    assert targets == sorted(targets) and len(targets) > 1


def test_sizes_and_targets_that_do_not_fit(family: Family) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        family.latent_shape(17, 16)
    with pytest.raises(UsageError, match="train.lora.targets"):
        family.add_lora(2, None, ["nothing"], seed=0)


def test_every_lora_target_has_to_name_a_module(tiny_pipeline: Path) -> None:
    ours = load(str(tiny_pipeline), parts=["denoiser"])
    with pytest.raises(UsageError, match=r"is named 'to_kv' \(near: .*to_k.*\), 'zzz'$") as refused:
        ours.add_lora(2, None, ["to_q", "to_kv", "zzz"], seed=0)
    assert "family's own" in str(refused.value.hint)
    ours.add_lora(2, None, ["to_out.0", "mid_block.attentions.0.proj_in"], seed=0)
    adapted = {name.split(".lora_")[0] for name in trainable(ours)}
    assert "mid_block.attentions.0.proj_in" in adapted and all(n.endswith(("to_out.0", "proj_in")) for n in adapted)
    with pytest.raises(UsageError, match="train.lora.targets"):  # a module, but one without weights of its own
        load(str(tiny_pipeline), parts=["denoiser"]).add_lora(2, None, ["to_q", "attn1"], seed=0)


def test_half_precision_weights_are_cast_throughout(tiny_pipeline: Path) -> None:
    ours = load(str(tiny_pipeline), dtype="bfloat16")
    parts = (ours.pipe.unet, ours.pipe.vae, ours.pipe.text_encoder)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}


def test_no_safety_checker_to_reject_with(family: Family) -> None:
    with pytest.raises(WeightsError, match="has no safety checker"):
        family.flags(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))


def test_folders_that_are_not_a_pipeline(tiny_pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        load(str(tmp_path))
    assert "model_index.json" in (caught.value.hint or "")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(WeightsError, match="holds a FluxPipeline"):
        load(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds an index without a class, expected a StableDiffusionPipeline"):
        load(str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_pipeline, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])  # an interrupted copy
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(str(broken))


def test_an_interrupted_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise ConnectionError("peer closed connection\nlong traceback")

    monkeypatch.setattr("diffusers.DiffusionPipeline.load_config", interrupted)
    with pytest.raises(WeightsError, match="peer closed connection") as caught:
        load("owner/name", revision="c" * 40)
    assert "goes on where it stopped" in (caught.value.hint or "")


@pytest.mark.parametrize("parts", [["denoiser"], ["text", "vae"]])
def test_only_the_parts_asked_for_are_loaded_and_another_says_so(tiny_pipeline: Path, parts: list[Any]) -> None:
    ours = load(str(tiny_pipeline), parts=parts)
    loaded = {name for name in ("unet", "vae", "text_encoder", "tokenizer") if getattr(ours.pipe, name) is not None}
    assert loaded == ({"unet"} if parts == ["denoiser"] else {"vae", "text_encoder", "tokenizer"})
    assert (ours.default_size, ours.latent_shape(16, 16)) == ((16, 16), (4, 8, 8)), "sizes are known of every part"
    latents = torch.zeros(1, 4, 8, 8)
    if parts == ["denoiser"]:
        assert latents_from(ours, torch.zeros(1, 16, 16)).shape == latents.shape
        with pytest.raises(ValueError, match=r"text_encoder was not loaded; .* name 'text'"):
            ours.encode_text([PROMPT])
        with pytest.raises(ValueError, match=r"vae was not loaded; .* name 'vae'"):
            ours.decode(latents)
    else:
        conditioning = ours.encode_text([PROMPT]).conditioning
        assert ours.decode(ours.encode_images(torch.zeros(1, 3, 16, 16), [0])).shape == (1, 16, 16, 3)
        with pytest.raises(ValueError, match=r"unet was not loaded; .* name 'denoiser'"):
            latents_from(ours, conditioning["prompt_embeds"])


def latents_from(family: Family, hidden: torch.Tensor) -> torch.Tensor:
    return family.sample({"prompt_embeds": hidden}, None, noise_of([7], (4, 8, 8)), Sampling("ddim", 2, 1.0), [7])


def test_steps_that_a_scheduler_cannot_take_and_guidance_without_a_negative(family: Family) -> None:
    with pytest.raises(UsageError, match="generate.steps: 2000 with DDIMScheduler"):
        family.sample({}, None, noise_of([7], (4, 8, 8)), Sampling("ddim", 2000, 1.0), [7])
    with pytest.raises(ValueError, match="guidance needs"):
        family.sample({}, None, noise_of([7], (4, 8, 8)), Sampling("ddim", 2, 3.0), [7])
    assert [family.guided(guidance) for guidance in (0.0, 1.0, 1.5)] == [False, False, True]


def test_a_call_leaves_nothing_behind_for_the_next(family: Family) -> None:
    """Schedulers count steps and keep earlier predictions."""
    own = family.pipe.scheduler  # type: ignore[attr-defined]
    first = latents_of(family, 4.0, "model")
    latents_of(family, 1.0, "unipc")
    assert torch.equal(latents_of(family, 4.0, "model"), first)
    assert family.pipe.scheduler is own  # type: ignore[attr-defined]
