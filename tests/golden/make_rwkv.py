"""Write a tiny RWKV-4 as Hugging Face has them, and its logits: ``python tests/golden/make_rwkv.py``.

Needs torch and transformers (5.23 was used), which the tests do not.
"""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import RwkvConfig, RwkvForCausalLM

FOLDER = Path(__file__).parent / "rwkv"
SIZES = {"vocab_size": 53, "hidden_size": 24, "intermediate_size": 40}

if __name__ == "__main__":
    torch.manual_seed(6)
    tokens = np.random.default_rng(6).integers(0, 53, 30)
    model = RwkvForCausalLM(RwkvConfig(**SIZES, num_hidden_layers=3, context_length=64, rescale_every=2)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim < 2 or "time" in name else 1.2 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink()
    model = model.double()
    # The modules cast to float32 here and there; what is wanted is what they mean.
    with (
        torch.no_grad(),
        patch.object(torch, "float32", torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        logits = model(torch.tensor(tokens[None])).logits[0]
    save_file({"tokens": tokens, "logits": logits.numpy()}, FOLDER / "expected.safetensors")
