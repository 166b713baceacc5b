"""Tiny models of every type that `transformers` builds from a configuration."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from architecture_zoo.tasks import CLASSES, VOCABULARY, Case, draw_images, draw_tokens

LARGEST = 12_000_000
"""Models with more parameters than this are left out: their type has sizes of its own."""

SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim"), 64),
    **dict.fromkeys(("decoder_hidden_size", "word_embed_proj_dim", "projection_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_size"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "d_inner"), 128),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    "vocab_size": VOCABULARY,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": CLASSES,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
    "kv_lora_rank": 16,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "mamba_d_state": 8,
    "state_size": 8,
}
"""Sizes that are set where a configuration has them."""

_TASKS = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_CLASSIFICATION")


def list_language_models() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield the name of every model type that is small enough, and what builds it."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    seen = set()
    for task in _TASKS:
        names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")
        for kind in names:
            if kind in seen or kind not in CONFIG_MAPPING:
                continue
            seen.add(kind)
            yield f"{kind} ({task.lower()})", partial(build, kind, task)


def build(kind: str, task: str) -> Case:
    """Return a tiny model of a type with its own loss.

    Args:
        kind: Its `model_type`.
        task: What it is for: the name of one of the tables of `transformers`.

    Raises:
        ValueError: If it cannot be made small by the usual names of sizes.
    """
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    factory = CONFIG_MAPPING[kind]
    default = factory()
    config = factory(**{key: value for key, value in SMALL.items() if hasattr(default, key)})
    mapping = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING")
    with torch.device("meta"):
        size = sum(p.numel() for p in mapping[type(config)](config).parameters())
    if size > LARGEST:
        raise ValueError(f"{kind} has {size:,} parameters")
    model = mapping[type(config)](config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if task == "IMAGE_CLASSIFICATION":
        images, labels = draw_images(8, 32, getattr(config, "num_channels", 3))
        return model, lambda m: _read_loss(m(pixel_values=images, labels=labels))
    tokens = draw_tokens(8, 16)
    if task == "MASKED_LM":
        hidden = torch.where(torch.rand(tokens.shape) < 0.3, 3, tokens)
        return model, lambda m: _read_loss(m(input_ids=hidden, labels=tokens))
    return model, lambda m: _read_loss(m(input_ids=tokens, labels=tokens))


def _read_loss(output: Any) -> Tensor:
    loss = output.loss
    if not isinstance(loss, Tensor):
        raise ValueError("this type computes no loss")
    return loss
