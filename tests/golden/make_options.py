"""Write tiny models with the options that the other models leave at their defaults: ``python tests/golden/make_options.py``.

Needs torch and transformers (5.24 was used), which the tests do not.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent / "options"
SIZES = {"vocab_size": 13, "hidden_size": 12, "num_hidden_layers": 2}
HEADS = SIZES | {"intermediate_size": 10, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
OPTIONS: dict[str, dict[str, Any]] = {
    "mistral": {**HEADS, "sliding_window": None, "tie_word_embeddings": True},
    "qwen2": {**HEADS, "num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 4,
              "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {**HEADS, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1,
              "tie_word_embeddings": True},
    "qwen3_next": {**HEADS, "num_key_value_heads": 1, "head_dim": 8, "linear_num_key_heads": 1, "linear_num_value_heads": 2,
                   "linear_key_head_dim": 4, "linear_value_head_dim": 3, "linear_conv_kernel_dim": 2,
                   "num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 4,
                   "shared_expert_intermediate_size": 5, "decoder_sparse_step": 2,
                   "layer_types": ["linear_attention", "full_attention"]},
    "falcon_mamba": {**SIZES, "state_size": 4, "expand": 1, "conv_kernel": 3, "time_step_rank": 2,
                     "layer_norm_epsilon": 1e-2, "mixer_rms_eps": 1e-2, "use_bias": True, "use_conv_bias": False,
                     "tie_word_embeddings": False},
    "rwkv": {**SIZES, "attention_hidden_size": 8, "intermediate_size": 10, "rescale_every": 0},
}  # fmt: skip
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 12, 8, 4]


def write(kind: str, seed: int) -> None:
    """Write one model, all of whose numbers are drawn."""
    torch.manual_seed(seed)
    eager = {"attn_implementation": "eager"} if "head_dim" in OPTIONS[kind] else {}
    eager |= {"experts_implementation": "eager"} if "num_experts" in OPTIONS[kind] else {}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **OPTIONS[kind], **eager)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim < 2 or "time" in name else 1.2 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
            if name.endswith("dt_bias"):
                parameter.sub_(2.0)  # so that something is remembered
            elif name.endswith("dt_proj.bias"):
                parameter.add_(2.0)  # so that something is forgotten
    model.save_pretrained(HERE / kind)
    (HERE / kind / "generation_config.json").unlink(missing_ok=True)
    said = json.loads((HERE / kind / "config.json").read_text())
    if "max_window_layers" in OPTIONS[kind]:
        del said["layer_types"]  # which follow from it
    (HERE / kind / "config.json").write_text(json.dumps(said, indent=2) + "\n")
    model = model.double()
    # The modules cast to float32 here and there; what is wanted is what they mean.
    with (
        torch.no_grad(),
        patch.object(torch, "float32", torch.float64),
        patch.object(torch, "float", torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        if "head_dim" in OPTIONS[kind]:
            model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0]
    save_file({"tokens": np.array(TOKENS), "logits": logits.numpy()}, HERE / kind / "expected.safetensors")


if __name__ == "__main__":
    for number, kind in enumerate(OPTIONS):
        write(kind, number)
