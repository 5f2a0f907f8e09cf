"""Small language models with random weights."""

from __future__ import annotations

from typing import Any

import torch


def small_model(kind: str, vocabulary: int = 17, **changes: Any) -> torch.nn.Module:
    """A Llama or Qwen2 (biases, tied embeddings) of two layers, in float32 and with attention by SDPA."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # so that distributions are not all alike
        "attn_implementation": "sdpa",
        **changes,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model
