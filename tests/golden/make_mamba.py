"""Write the tiny Mamba models and their logits: ``python tests/golden/make_mamba.py``.

Needs torch and transformers (5.23 was used), which the tests do not.
"""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

HERE = Path(__file__).parent
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]
SIZES = {"vocab_size": 53, "hidden_size": 28}

BIASES = {
    "num_hidden_layers": 2,
    "expand": 3,
    "state_size": 6,
    "conv_kernel": 3,
    "time_step_rank": 5,
    "layer_norm_epsilon": 1e-3,
    "use_bias": True,
    "use_conv_bias": True,
    "tie_word_embeddings": True,
}
NO_BIAS = {"num_hidden_layers": 3, "state_size": 5, "use_conv_bias": False, "tie_word_embeddings": False}
FALCON = {"num_hidden_layers": 2, "state_size": 7, "mixer_rms_eps": 0.05, "tie_word_embeddings": False}
GROUPS = {
    "num_hidden_layers": 2,
    "expand": 3,
    "num_heads": 6,
    "head_dim": 14,
    "n_groups": 3,
    "state_size": 5,
    "conv_kernel": 3,
    "chunk_size": 8,
    "layer_norm_epsilon": 1e-3,
    "time_step_limit": (0.05, 0.4),
    "use_bias": True,
    "tie_word_embeddings": True,
}
CODESTRAL = {
    "num_hidden_layers": 3,
    "num_heads": 4,
    "head_dim": 14,
    "n_groups": 2,
    "state_size": 6,
    "use_conv_bias": False,
    "tie_word_embeddings": False,
}
# What the released files have beside what transformers writes today.
FALCON_SAYS = {"expand": 16, "intermediate_size": 56}
CODESTRAL_SAYS = {
    "intermediate_size": 56,
    "norm_before_gate": True,
    "rms_norm": True,
    "time_step_init_scheme": "random",
    "time_step_limit": [0.0, float("inf")],
    "time_step_scale": 1.0,
}


def write(name: str, make: Callable[..., torch.nn.Module], config: object, seed: int, said: dict[str, object]) -> None:
    """Write one model, all of whose numbers are drawn, and change its configuration to what is said."""
    torch.manual_seed(seed)
    folder, model = HERE / name, make(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else 1.2 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
        for part, parameter in model.named_parameters():
            if part.endswith(("dt_proj.bias", "dt_bias")):
                parameter.add_(2.0)  # steps that forget within the text, and reach the limits where there are some
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    fields = json.loads((folder / "config.json").read_text()) | said
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    model = model.double()
    # The modules cast to float32 here and there; what is wanted is what they mean.
    with (
        torch.no_grad(),
        patch.object(torch, "float32", torch.float64),
        patch.object(torch.Tensor, "float", lambda x: x),
    ):
        logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0]
    save_file({"tokens": np.array(TOKENS), "logits": logits.numpy()}, folder / "expected.safetensors")


if __name__ == "__main__":
    write("mamba1", MambaForCausalLM, MambaConfig(**SIZES, **BIASES), 1, {})
    write("mamba1_untied", MambaForCausalLM, MambaConfig(**SIZES, **NO_BIAS), 2, {})
    write("falcon_mamba", FalconMambaForCausalLM, FalconMambaConfig(**SIZES, **FALCON), 3, FALCON_SAYS)
    write("mamba2", Mamba2ForCausalLM, Mamba2Config(**SIZES, **GROUPS), 4, {})
    write("mamba2_codestral", Mamba2ForCausalLM, Mamba2Config(**SIZES, **CODESTRAL), 5, CODESTRAL_SAYS)
