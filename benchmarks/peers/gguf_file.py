"""Write RWKV-7 as GGUF, in the names, layouts and metadata that llama.cpp expects."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import quantize

from wkvnp.checkpoints import open_checkpoint

MATRICES = {"float32": Type.F32, "bfloat16": Type.BF16, "int8": Type.Q8_0, "int4": Type.Q4_0}
FACTORS = {"float32": Type.F32, "bfloat16": Type.BF16, "int8": Type.BF16, "int4": Type.BF16}
NAMES = {
    r"emb\.weight": "token_embd.weight",
    r"blocks\.0\.ln0\.(weight|bias)": r"token_embd_norm.\1",
    r"ln_out\.(weight|bias)": r"output_norm.\1",
    r"head\.weight": "output.weight",
    r"blocks\.(\d+)\.ln1\.(weight|bias)": r"blk.\1.attn_norm.\2",
    r"blocks\.(\d+)\.ln2\.(weight|bias)": r"blk.\1.attn_norm_2.\2",
    r"blocks\.(\d+)\.att\.ln_x\.(weight|bias)": r"blk.\1.time_mix_ln.\2",
    r"blocks\.(\d+)\.att\.(receptance|key|value|output)\.weight": r"blk.\1.time_mix_\2.weight",
    r"blocks\.(\d+)\.att\.([wavg][012]|k_k|k_a|r_k)": r"blk.\1.time_mix_\2.weight",
    r"blocks\.(\d+)\.ffn\.(key|value)\.weight": r"blk.\1.channel_mix_\2.weight",
    r"blocks\.(\d+)\.ffn\.x_k": r"blk.\1.channel_mix_lerp_k.weight",
}
SHARES = "rwkvag"


def name_of(name: str) -> str:
    """Return what llama.cpp calls a tensor."""
    for pattern, theirs in NAMES.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    raise KeyError(name)


def type_of(name: str, form: str) -> Type:
    """Return how a tensor is stored: its converter and quantiser leave vectors, and the decay's factors, as they are.

    The embedding is only looked up; it is stored as ours is.
    """
    if re.search(r"(receptance|key|value|output|head)\.weight$", name):
        return MATRICES[form]
    return FACTORS[form] if re.search(r"emb\.weight$|att\.[avg][12]$", name) else Type.F32


def write_gguf(source: Path, path: Path, form: str) -> None:
    """Write the tensors of an RWKV-7 checkpoint."""
    tensors = {name: np.asarray(tensor.read()) for name, tensor in open_checkpoint(source).tensors.items()}
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    writer = GGUFWriter(path, "rwkv7")
    vocabulary, width = tensors["emb.weight"].shape
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(len(tensors["blocks.0.ffn.key.weight"]))
    writer.add_head_count(0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(tensors["blocks.0.att.r_k"].shape[1])
    ranks = {letter: tensors[f"blocks.{layers - 1}.att.{letter}2"].shape[0] for letter in "wavg"}
    writer.add_decay_lora_rank(ranks["w"])
    writer.add_iclr_lora_rank(ranks["a"])
    writer.add_value_residual_mix_lora_rank(ranks["v"])
    writer.add_gate_lora_rank(ranks["g"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(vocabulary)
    for n in range(layers):
        shares = [tensors.pop(f"blocks.{n}.att.x_{letter}").reshape(1, 1, width) for letter in SHARES]
        writer.add_tensor(f"blk.{n}.time_mix_lerp_fused.weight", np.stack(shares).astype(np.float32))
    for digit in "012":  # the first layer has no value residual; llama.cpp wants something in its place
        tensors.setdefault(f"blocks.0.att.v{digit}", tensors[f"blocks.0.att.a{digit}"])
    for name, array in tensors.items():
        kind = type_of(name, form)
        array = array.T if re.search(r"att\.[wavg][12]$", name) else array if array.ndim == 2 else array.reshape(-1)
        array = array.reshape(-1) if name.endswith("r_k") else array
        writer.add_tensor(name_of(name), quantize(np.ascontiguousarray(array, np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
