"""The naming schemes that RWKV weights are found under, and what tells the versions apart.

A scheme is recognised by exact tensor names, never by values, and is a table of rules that lead to the names and
layouts of the original authors. Letters: C embedding width, H heads, N head size, R rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..checkpoints import LazyTensor
from ..checkpoints.naming import Group, Renamed, Reorder, Reshape, Rule, Transpose
from ..errors import CheckpointError

_ROW = Reshape((1, 1, -1))

# transformers `rwkv` (RWKV-4) and the remote-code repositories of RWKV-5 and RWKV-6: only names differ.
_HUGGING_FACE = (
    Rule(r"rwkv\.embeddings\.weight", "emb.weight"),
    Rule(r"rwkv\.ln_out\.(\w+)", r"ln_out.\1"),
    Rule(r"rwkv\.blocks\.0\.pre_ln\.(\w+)", r"blocks.0.ln0.\1"),
    Rule(r"rwkv\.blocks\.(\d+)\.(ln[12]\.\w+)", r"blocks.\1.\2"),
    Rule(r"rwkv\.blocks\.(\d+)\.attention\.time_mix_([krvg])\w+", r"blocks.\1.att.time_mix_\2"),
    Rule(r"rwkv\.blocks\.(\d+)\.feed_forward\.time_mix_([kr])\w+", r"blocks.\1.ffn.time_mix_\2"),
    Rule(r"rwkv\.blocks\.(\d+)\.attention\.(.+)", r"blocks.\1.att.\2"),
    Rule(r"rwkv\.blocks\.(\d+)\.feed_forward\.(.+)", r"blocks.\1.ffn.\2"),
)

# Flash Linear Attention: what its RWKV-6 and RWKV-7 share.
_FLA = (
    Rule(r"model\.embeddings\.weight", "emb.weight"),
    Rule(r"model\.norm\.(\w+)", r"ln_out.\1"),
    Rule(r"lm_head\.weight", "head.weight"),
    Rule(r"model\.layers\.0\.pre_norm\.(\w+)", r"blocks.0.ln0.\1"),
    Rule(r"model\.layers\.(\d+)\.attn_norm\.(\w+)", r"blocks.\1.ln1.\2"),
    Rule(r"model\.layers\.(\d+)\.ffn_norm\.(\w+)", r"blocks.\1.ln2.\2"),
    Rule(r"model\.layers\.(\d+)\.attn\.g_norm\.(\w+)", r"blocks.\1.att.ln_x.\2"),
    Rule(r"model\.layers\.(\d+)\.attn\.o_proj\.weight", r"blocks.\1.att.output.weight"),
    Rule(r"model\.layers\.(\d+)\.ffn\.value\.weight", r"blocks.\1.ffn.value.weight"),
)

_FLA_RWKV7 = (
    *_FLA,
    Rule(r"model\.layers\.(\d+)\.attn\.(x_[rwkvag]|k_k|k_a)", r"blocks.\1.att.\2", (_ROW,)),
    Rule(
        r"model\.layers\.(\d+)\.attn\.x_x",  # an older version keeps the six mixing rows in one matrix
        tuple(rf"blocks.\1.att.x_{letter}" for letter in "rwkvag"),
        (Reshape((6, 1, -1)),),
    ),
    Rule(r"model\.layers\.(\d+)\.attn\.r_k", r"blocks.\1.att.r_k"),
    Rule(r"model\.layers\.(\d+)\.attn\.r_proj\.weight", r"blocks.\1.att.receptance.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.k_proj\.weight", r"blocks.\1.att.key.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.v_proj\.weight", r"blocks.\1.att.value.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.([wavg])_lora\.lora\.0\.weight", r"blocks.\1.att.\g<2>1", (Transpose(),)),
    Rule(r"model\.layers\.(\d+)\.attn\.([wavg])_lora\.lora\.2\.weight", r"blocks.\1.att.\g<2>2", (Transpose(),)),
    Rule(r"model\.layers\.(\d+)\.attn\.([wav])_lora\.lora\.2\.bias", r"blocks.\1.att.\g<2>0", (_ROW,)),
    Rule(r"model\.layers\.(\d+)\.ffn\.x_k", r"blocks.\1.ffn.x_k", (_ROW,)),
    Rule(r"model\.layers\.(\d+)\.ffn\.key\.weight", r"blocks.\1.ffn.key.weight"),
)

# The five groups of the low-rank mix are in the order r w k v g there and w k v r g in the original.
_FROM_RWKVG = Reorder((1, 2, 3, 0, 4))

_FLA_RWKV6 = (
    *_FLA,
    Rule(r"model\.layers\.(\d+)\.attn\.x_proj\.0\.mu", r"blocks.\1.att.time_maa_x", (_ROW,)),
    Rule(
        r"model\.layers\.(\d+)\.attn\.x_proj\.0\.linear\.weight",
        r"blocks.\1.att.time_maa_w1",
        (_FROM_RWKVG, Transpose()),
    ),
    Rule(
        r"model\.layers\.(\d+)\.attn\.x_proj\.2\.weight",
        r"blocks.\1.att.time_maa_w2",
        (Transpose(), _FROM_RWKVG, Group(5)),
    ),
    Rule(
        r"model\.layers\.(\d+)\.attn\.x_bias",
        tuple(rf"blocks.\1.att.time_maa_{letter}" for letter in "rwkvg"),
        (Reshape((5, 1, -1)),),
    ),
    Rule(r"model\.layers\.(\d+)\.attn\.r_proj\.linear\.weight", r"blocks.\1.att.receptance.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.k_proj\.linear\.weight", r"blocks.\1.att.key.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.v_proj\.linear\.weight", r"blocks.\1.att.value.weight"),
    Rule(r"model\.layers\.(\d+)\.attn\.g_proj\.linear\.weight", r"blocks.\1.att.gate.weight"),
    Rule(
        r"model\.layers\.(\d+)\.attn\.w_proj\.linear\.lora\.0\.weight",
        r"blocks.\1.att.time_decay_w1",
        (Transpose(),),
    ),
    Rule(
        r"model\.layers\.(\d+)\.attn\.w_proj\.linear\.lora\.2\.weight",
        r"blocks.\1.att.time_decay_w2",
        (Transpose(),),
    ),
    Rule(r"model\.layers\.(\d+)\.attn\.w_proj\.linear\.lora\.2\.bias", r"blocks.\1.att.time_decay", (_ROW,)),
    Rule(r"model\.layers\.(\d+)\.attn\.bonus", r"blocks.\1.att.time_faaaa"),
    Rule(r"model\.layers\.(\d+)\.ffn\.key\.linear\.weight", r"blocks.\1.ffn.key.weight"),
    Rule(r"model\.layers\.(\d+)\.ffn\.key\.mu", r"blocks.\1.ffn.time_maa_k", (_ROW,)),
    Rule(r"model\.layers\.(\d+)\.ffn\.receptance\.linear\.weight", r"blocks.\1.ffn.receptance.weight"),
    Rule(r"model\.layers\.(\d+)\.ffn\.receptance\.mu", r"blocks.\1.ffn.time_maa_r", (_ROW,)),
)

# web-rwkv .st files keep the original names but for two words, and swap the last two axes of low-rank factors.
_WEB_STATE = Rule(r"blocks\.(\d+)\.att\.time_state", r"blocks.\1.att.time_state", (Transpose(),))
_WEB_RWKV5 = (Rule(r"blocks\.(\d+)\.att\.time_first", r"blocks.\1.att.time_faaaa"), _WEB_STATE)
_WEB_RWKV6 = (
    *_WEB_RWKV5,
    Rule(r"blocks\.(\d+)\.att\.time_mix_(w[12])", r"blocks.\1.att.time_maa_\2", (Transpose(),)),
    Rule(r"blocks\.(\d+)\.att\.time_decay_(w[12])", r"blocks.\1.att.time_decay_\2", (Transpose(),)),
    Rule(r"blocks\.(\d+)\.(att|ffn)\.time_mix_(\w)", r"blocks.\1.\2.time_maa_\3"),
)
_WEB_RWKV7 = (Rule(r"blocks\.(\d+)\.att\.([wavg][12])", r"blocks.\1.att.\2", (Transpose(),)), _WEB_STATE)


@dataclass(frozen=True)
class Scheme:
    """A foreign naming scheme: files that have all the `markers` follow its `rules`."""

    name: str
    markers: tuple[str, ...]
    rules: tuple[Rule, ...]


SCHEMES = (
    Scheme("Hugging Face RWKV-4, 5, 6", ("rwkv.embeddings.weight",), _HUGGING_FACE),
    Scheme("Flash Linear Attention RWKV-7", ("model.layers.0.attn.r_k",), _FLA_RWKV7),
    Scheme("Flash Linear Attention RWKV-6", ("model.layers.0.attn.x_bias",), _FLA_RWKV6),
    Scheme("web-rwkv RWKV-6", ("blocks.0.att.time_mix_x",), _WEB_RWKV6),
    # The original has `time_first` only in versions without a gate.
    Scheme("web-rwkv RWKV-5", ("blocks.0.att.time_first", "blocks.0.att.gate.weight"), _WEB_RWKV5),
)


def original_names(tensors: Mapping[str, LazyTensor], source: str) -> Mapping[str, LazyTensor]:
    """Return the tensors under the names and in the layouts of the original authors.

    Parameters
    ----------
    tensors : mapping of str to LazyTensor
        The tensors of a file.
    source : str
        What to call the file in an error.

    Returns
    -------
    mapping of str to LazyTensor
        `tensors` itself where the names are the original ones or no scheme is recognised.

    Raises
    ------
    CheckpointError
        If a scheme is recognised but a tensor's shape is impossible in it.
    """
    for scheme in SCHEMES:
        if all(marker in tensors for marker in scheme.markers):
            return Renamed(tensors, scheme.rules, source=f"{source} ({scheme.name} names)")
    if _low_rank_is_transposed(tensors):
        return Renamed(tensors, _WEB_RWKV7, source=f"{source} (web-rwkv RWKV-7 layout)")
    return tensors


def _low_rank_is_transposed(tensors: Mapping[str, LazyTensor]) -> bool:
    """Tell a web-rwkv RWKV-7, whose names are the original ones, by the first low-rank factor that is not square."""
    if "blocks.0.att.r_k" not in tensors or "emb.weight" not in tensors:
        return False
    width = tensors["emb.weight"].shape[-1:]
    for name in ("w1", "a1", "g1"):
        factor = tensors.get(f"blocks.0.att.{name}")
        if factor is not None and len(factor.shape) == 2 and factor.shape[0] != factor.shape[1]:
            return factor.shape[1:] == width
    return False


_BLOCK = r"blocks\.\d+\."
_RELATIVES = (
    (r"head_q\.weight|head_k\.weight|copy_mask", "an RWKV-4 with the extra head-QK attention"),
    (rf"(?:{_BLOCK})?pos_emb_[xy]", "an RWKV-4 with a trained position embedding"),
    (rf"{_BLOCK}ffnPre\..*", "an RWKV with a channel mix in place of the first time mix (ffnPre)"),
    (rf"{_BLOCK}tiny_.*", "an RWKV with a small attention side branch (tiny attention)"),
    (rf"{_BLOCK}ffn\.(?:aa|bb)\.weight", "an RWKV with a Mish-gated feed-forward"),
    (rf"{_BLOCK}att\.gate_w[12]", "the RWKV-6 variant with a low-rank gate (x060a)"),
    (rf"{_BLOCK}att\.time_maa_rkvw_w1", "an RWKV-6 variant with four-way mixing (x060b or x060c)"),
    (rf"{_BLOCK}ffn\.s_emb\..*", "an RWKV-7a with DeepEmbed"),
    (rf"{_BLOCK}qkv\..*", "an RWKV hybrid with softmax attention (RWKV-7b or RWKV-8)"),
    (r"(?:.*\.)?rosa.*", "an RWKV-8 with ROSA"),
)


def refuse_relatives(names: Iterable[str], extras: Mapping[str, object], source: str) -> None:
    """Refuse the models that share names with a supported RWKV and would silently compute something else.

    Parameters
    ----------
    names : iterable of str
        Tensor names in the original scheme.
    extras : mapping of str to object
        The values beside the tensors, ``Container.extras``.
    source : str
        What to call the file in an error.

    Raises
    ------
    CheckpointError
        If the file is such a relative; the message says which.
    """
    for key in ("_strategy", "_version", "_rescale_layer"):
        if key in extras:
            raise CheckpointError(
                f"{source}: this file was already converted for the rwkv pip package (it has the entry {key!r}): "
                "its matrices are transposed and its decays transformed. Load the original .pth instead"
            )
    names = list(names)
    for pattern, what in _RELATIVES:
        hit = next((name for name in names if re.fullmatch(pattern, name)), None)
        if hit is not None:
            raise CheckpointError(
                f"{source}: this is {what} (tensor {hit!r}), which wkvnp does not compute; "
                "reading it as a plain RWKV would give wrong results"
            )


def version(tensors: Mapping[str, LazyTensor], source: str) -> str:
    """Return the architecture of a file, by the tensors that its first block has.

    Parameters
    ----------
    tensors : mapping of str to LazyTensor
        The tensors under original names.
    source : str
        What to call the file in an error.

    Returns
    -------
    str
        ``"rwkv4"``, ``"rwkv5.0"``, ``"rwkv5.1"``, ``"rwkv5.2"``, ``"rwkv6"`` or ``"rwkv7"``.

    Raises
    ------
    CheckpointError
        If the first block belongs to no known version; the message says what was looked for.
    """
    att = "blocks.0.att."
    if att + "r_k" in tensors:
        return "rwkv7"
    if att + "time_maa_x" in tensors:
        return "rwkv6"
    decay = tensors.get(att + "time_decay")
    if att + "ln_x.weight" in tensors and decay is not None:
        if att + "gate.weight" not in tensors:
            return "rwkv5.0"
        return "rwkv5.2" if any(size > 1 for size in decay.shape[1:]) else "rwkv5.1"
    if att + "time_first" in tensors and decay is not None:
        return "rwkv4"
    if tensors and all(re.fullmatch(rf"{_BLOCK}att\.time_state", name) for name in tensors):
        raise CheckpointError(
            f"{source}: this file holds only a tuned initial state (blocks.*.att.time_state), no model; "
            "load the model it was tuned for, then this file with wkvnp.State.load(path, model)"
        )
    first = ", ".join(repr(name[:80]) for name in list(tensors)[:5])
    raise CheckpointError(
        f"{source}: not a known RWKV: looked in block 0 for att.r_k (RWKV-7), att.time_maa_x (RWKV-6), att.ln_x.weight "
        f"with att.time_decay (RWKV-5) and att.time_first with att.time_decay (RWKV-4); the file has {len(tensors)} "
        f"tensors: {first}{', ...' if len(tensors) > 5 else ''}"
    )
