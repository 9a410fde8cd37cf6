"""Write the tiny Qwen3-Next models and their logits: ``python tests/golden/make_qwen3_next.py``.

Needs torch and transformers (5.23 was used), which the tests do not.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

HERE = Path(__file__).parent
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]

SIZES = {
    "vocab_size": 47,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 7,
    "linear_conv_kernel_dim": 3,
    "rms_norm_eps": 1e-3,
}
DENSE = {
    "head_dim": 16,
    "intermediate_size": 40,
    "num_experts": 0,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "attention_bias": True,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
}
EXPERTS = {
    "head_dim": 8,
    "intermediate_size": 28,
    "full_attention_interval": 2,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 12,
    "norm_topk_prob": False,
    "mlp_only_layers": [1],
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
}


def write(folder: Path, fields: dict[str, Any], seed: int, *, published: bool) -> None:
    """Write one model; `published` gives its configuration the form that the released checkpoints have."""
    torch.manual_seed(seed)
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = Qwen3NextForCausalLM(Qwen3NextConfig(**SIZES, **fields, **eager)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else 1.0 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
        for name, parameter in model.named_parameters():
            if name.endswith("dt_bias"):
                parameter.sub_(2.0)  # so that something is remembered
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    if published:
        config = json.loads((folder / "config.json").read_text())
        del config["layer_types"]
        rope = config.pop("rope_parameters")
        config |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor")}
        config |= {"rope_scaling": None, "full_attention_interval": fields["full_attention_interval"]}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = model.double()
    rope = fields["rope_parameters"]
    size = int(fields["head_dim"] * rope["partial_rotary_factor"])
    model.model.rotary_emb.inv_freq = rope["rope_theta"] ** -(torch.arange(0, size, 2).double() / size)
    # The modules cast to float32 here and there; what is wanted is what they mean.
    with (
        torch.no_grad(),
        patch.object(torch, "float32", torch.float64),
        patch.object(torch, "float", torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0]
    save_file({"tokens": np.array(TOKENS), "logits": logits.numpy()}, folder / "expected.safetensors")


if __name__ == "__main__":
    write(HERE / "qwen3_next", DENSE, 1, published=False)
    write(HERE / "qwen3_next_experts", EXPERTS, 2, published=True)
