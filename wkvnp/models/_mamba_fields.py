"""The configuration of state-spaces/mamba's own checkpoints, in the fields that Hugging Face has for the same.

References
----------
state-spaces/mamba, ``mamba_ssm/models/config_mamba.py``, ``mamba_ssm/models/mixer_seq_simple.py``, and the arguments of
``mamba_ssm/modules/mamba_simple.py`` and ``mamba2.py``, which ``ssm_cfg`` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import Settings


def in_hugging_face_terms(fields: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return fields as Hugging Face names them; those that are not state-spaces' own stay as they are.

    Raises
    ------
    CheckpointError
        If a field says what wkvnp does not compute, or is not known.

    Examples
    --------
    >>> fields = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}}
    >>> theirs = in_hugging_face_terms(fields, "config.json")
    >>> theirs["model_type"], theirs["hidden_size"], theirs["num_heads"], theirs["vocab_size"]
    ('mamba2', 768, 24, 50280)
    """
    if "model_type" in fields or "d_model" not in fields:
        return fields
    settings = Settings(fields, source)
    settings.choice("rms_norm", (True,), True)
    settings.choice("d_intermediate", (0,), 0)
    settings.choice("attn_layer_idx", ([],), [])
    settings.ignore("attn_cfg", "fused_add_norm", "residual_in_fp32")
    ssm = settings.nested("ssm_cfg") or Settings({}, f"{source}: ssm_cfg")
    ssm.ignore("dt_min", "dt_max", "dt_init_floor")  # how new weights are drawn
    width, multiple = settings.integer("d_model"), settings.integer("pad_vocab_size_multiple", 8)
    expand = ssm.integer("expand", 2)
    theirs: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": settings.integer("n_layer"),
        "vocab_size": -(-settings.integer("vocab_size") // multiple) * multiple,
        "tie_word_embeddings": settings.flag("tie_embeddings", True),
        "conv_kernel": ssm.integer("d_conv", 4),
        "expand": expand,
        "use_bias": ssm.flag("bias"),
        "use_conv_bias": ssm.flag("conv_bias", True),
        "layer_norm_epsilon": 1e-5,
    }
    second = ssm.choice("layer", ("Mamba1", "Mamba2"), "Mamba1") == "Mamba2"
    theirs |= _mamba2(ssm, expand * width) if second else _mamba1(ssm)
    ssm.finish(remarks=False)
    settings.finish(remarks=False)
    return theirs


def _mamba1(ssm: Settings) -> dict[str, Any]:
    ssm.ignore("dt_init", "dt_scale", "use_fast_path")
    rank = ssm.value("dt_rank")
    return {
        "model_type": "mamba",
        "state_size": ssm.integer("d_state", 16),
        "time_step_rank": "auto" if rank is None else rank,
    }


def _mamba2(ssm: Settings, inner: int) -> dict[str, Any]:
    ssm.choice("rmsnorm", (True,), True)
    ssm.choice("norm_before_gate", (False,), False)
    ssm.choice("D_has_hdim", (False,), False)
    ssm.choice("d_ssm", (None, inner))
    ssm.ignore("A_init_range", "chunk_size", "conv_init", "use_mem_eff_path")
    head = ssm.integer("headdim", 64)
    limit = ssm.value("dt_limit")
    return {
        "model_type": "mamba2",
        "state_size": ssm.integer("d_state", 128),
        "num_heads": inner // head,
        "head_dim": head,
        "n_groups": ssm.integer("ngroups", 1),
        **({} if limit is None else {"time_step_limit": limit}),
    }
