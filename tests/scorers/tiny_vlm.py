"""A LLaVA of some ten thousand random weights and its processor, as a folder that transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["picture", "prompt", "Does", "this", "figure", "show", "Please", "answer", "yes", "or", "no"]
TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ANSWER:"
)
IMAGE, PATCH = 16, 8


def tokenizer() -> Any:
    """Whole words, digits and letters; everything else is letters one by one."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    letters = [chr(code) for code in range(33, 127)]
    words = list(dict.fromkeys([*special, *letters, "Yes", "No", "USER", "ANSWER", *WORDS]))
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    known = "|".join(word for word in words if word.isalpha() and len(word) > 1)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(rf"\b({known})\b|."), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def save(folder: Path) -> Path:
    """Write model and processor."""
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=IMAGE,
        patch_size=PATCH, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    image = words.convert_tokens_to_ids("<image>")
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=image))
    for value in model.parameters():  # the default initialisation is too flat to tell one picture from another
        value.data.normal_(0, 0.4)
    model.save_pretrained(folder)
    side = {"height": IMAGE, "width": IMAGE}
    pixels = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=side)
    processor = LlavaProcessor(
        pixels, words, patch_size=PATCH, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder
