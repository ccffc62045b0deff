"""The full-size key lists, written from the architecture, load strictly on the meta device."""

import pytest
import torch

from aifeedback.errors import WeightsError
from aifeedback.scorers.networks import open_clip as _open_clip

H14 = {"vision": 1280, "vision_layers": 32, "text": 1024, "text_layers": 24, "joint": 1024}
L14 = {"vision": 1024, "vision_layers": 24, "text": 768, "text_layers": 12, "joint": 768}


def manifest(vision: int, vision_layers: int, text: int, text_layers: int, joint: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an open_clip ViT of patch 14 at 224 pixels."""
    found: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, text),
        "text_projection": (text, joint),
        "logit_scale": (),
        "token_embedding.weight": (49408, text),
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": (257, vision),
        "visual.proj": (vision, joint),
        "visual.conv1.weight": (vision, 3, 14, 14),
    }
    for name, width in (("visual.ln_pre", vision), ("visual.ln_post", vision), ("ln_final", text)):
        found |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for tower, width, layers in (("visual.transformer", vision, vision_layers), ("transformer", text, text_layers)):
        for n in range(layers):
            block = f"{tower}.resblocks.{n}"
            found |= {f"{block}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
            found |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
                f"{block}.attn.out_proj.weight": (width, width),
                f"{block}.attn.out_proj.bias": (width,),
                f"{block}.mlp.c_fc.weight": (4 * width, width),
                f"{block}.mlp.c_fc.bias": (4 * width,),
                f"{block}.mlp.c_proj.weight": (width, 4 * width),
                f"{block}.mlp.c_proj.bias": (width,),
            }
    return found


def on_meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def test_vit_h_14_of_hpsv2() -> None:
    shapes = manifest(**H14)
    assert len(shapes) == 686
    model = _open_clip.model(on_meta(shapes), "gelu", head_width=80)
    assert sum(p.numel() for p in model.parameters()) == 986_109_441
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.num_attention_heads, text.num_attention_heads, vision.image_size) == (16, 16, 224)
    assert (vision.hidden_act, text.hidden_act, text.eos_token_id) == ("gelu", "gelu", 49407)
    assert all(p.device.type == "meta" for p in model.parameters())


def test_vit_l_14() -> None:
    model = _open_clip.model(on_meta(manifest(**L14)), "quick_gelu", head_width=64)
    assert sum(p.numel() for p in model.parameters()) == 427_616_513
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.num_attention_heads, text.num_attention_heads, text.hidden_act) == (16, 12, "quick_gelu")


@pytest.mark.parametrize(
    "key", ["visual.transformer.resblocks.31.mlp.c_proj.bias", "transformer.resblocks.3.ln_2.bias"]
)
def test_one_key_too_few_is_noticed(key: str) -> None:
    shapes = manifest(**H14)
    del shapes[key]
    with pytest.raises(WeightsError, match="1 missing: "):
        _open_clip.model(on_meta(shapes), "gelu", head_width=80)
