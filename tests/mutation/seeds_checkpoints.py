"""Seeds of the containers: tiny models in every one, changed as arrays and as files."""

from __future__ import annotations

import functools
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import ggmf_writer
import numpy as np
from gguf_writer import Packed, Typed, packed, write_gguf
from golden import tiny_models
from hugging_face_folder import tensors_in
from safetensors_writer import write_safetensors
from test_gguf_hugging_face import (
    backbone,
    backbone_metadata,
    decoder,
    decoder_metadata,
    written_backbone,
    written_decoder,
)
from test_gguf_models import metadata_of, model, random_blocks, written_as_rwkv6, written_as_rwkv7
from torch_writer import tensor, torch_file, weights_file

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints.naming import flatten
from wkvnp.checkpoints.quantised_blocks import packed_size
from wkvnp.checkpoints.quantised_tensors import parts

from . import array_edits, byte_edits, ggmf_edits, gguf_edits, json_edits, safetensors_edits, torch_edits
from .array_edits import Arrays
from .seed import Files, Seed, one_file

RWKV = ("rwkv4", "rwkv5.0", "rwkv5.2", "rwkv6", "rwkv7")
_DESCRIBED = ("transformer", "mamba1", "mamba2", "hybrid", "qwen3_next")
_tiny = functools.cache(tiny_models.tensors)


def saved(architecture: str, n_embd: int = 16, dtype: str = "float32") -> tuple[Arrays, dict[str, str]]:
    """Return the tensors and the metadata that a small random model is saved with."""
    made = wkvnp.random_model(architecture, n_layer=1, n_embd=n_embd, vocab_size=37, head_size=16, rng=0, dtype=dtype)
    arrays, more = parts(flatten(made.stored))
    return arrays, made.config.metadata() | more


def _of_arrays(
    name: str, arrays: Arrays, write: Callable[[Arrays], bytes], edit: Callable[[bytes, random.Random], bytes]
) -> Seed:
    """Return a seed of one file; its arrays are edited in half of the inputs, its bytes in all the others."""
    data = write(arrays)

    def mutate(rng: random.Random) -> Files:
        if rng.random() < 0.5:
            return {name: edit(data, rng)}
        changed = write(array_edits.edited(arrays, rng))
        return {name: edit(changed, rng) if rng.random() < 0.1 else changed}

    return Seed({name: data}, name, mutate)


def torch_files() -> list[Seed]:
    """Return RWKV models in torch zip files: plain, in bfloat16, under ``state_dict``, and with shared storages."""
    seeds = [_of_arrays("m.pth", saved(name)[0], weights_file, torch_edits.edited) for name in RWKV]
    narrowed = {name: narrow(array, BFLOAT16) for name, array in saved("rwkv6")[0].items()}
    seeds.append(_of_arrays("m.pth", narrowed, weights_file, torch_edits.edited))
    top, storages = {}, {}
    for number, (name, array) in enumerate(saved("rwkv7")[0].items()):
        key = str(number % 7)  # several tensors in one storage, each from where the last one ends
        top[name] = (key, len(storages.get(key, b"")) // 4, array)
        storages[key] = storages.get(key, b"") + array.tobytes()
    state = {
        name: tensor(key, "float32", len(storages[key]) // 4, array.shape, None, offset)
        for name, (key, offset, array) in top.items()
    }
    data = torch_file({"epoch": 3, "lr": 1e-4, "state_dict": state, "args": {"a": [1, (2, None)]}}, storages)
    seeds.append(one_file("m.pth", data, torch_edits.edited))
    with mock.patch.multiple(zipfile, ZIP64_LIMIT=20, ZIP_FILECOUNT_LIMIT=1):
        wide = weights_file(saved("rwkv4")[0])
    return [*seeds, one_file("m.pth", wide, torch_edits.edited_directory), _views()]


def _views() -> Seed:
    """Return a seed whose inputs are tensors with any shape, strides and offset in storages of 24 numbers."""
    dtypes = {"float32": 4, "bfloat16": 2, "int64": 8, "bool": 1}

    def drawn(rng: random.Random, usual: tuple[int, ...], odd: tuple[int, ...]) -> int:
        return rng.choice(odd if rng.random() < 0.05 else usual)

    def file(rng: random.Random, count: int) -> Files:
        top = {}
        for name in "ab"[:count]:
            shape = tuple(drawn(rng, (1, 1, 2, 3, 4), (0, 6, 24, -1)) for _ in range(rng.choice((0, 1, 2, 2, 3))))
            strides = tuple(drawn(rng, (0, 1, 1, 2, 4, 8), (12, 24, -1, 2**62)) for _ in shape)
            offset = drawn(rng, (0, 0, 1, 2, 16), (20, 23, 24, 25, -1, 2**62))
            dtype, stated = rng.choice(list(dtypes)), drawn(rng, (24,), (12, 0, 25, 2**61))
            top[name] = tensor(dtype, dtype, stated, shape, strides, offset)
        return {"m.pth": torch_file(top, {dtype: bytes(range(size)) * 24 for dtype, size in dtypes.items()})}

    return Seed(file(random.Random(0), 0), "m.pth", lambda rng: file(rng, 2), complete=False)


def safetensors_files() -> list[Seed]:
    """Return models under original names, and others that are described in the metadata."""
    models = [(_tiny(name), {"by": "wkvnp"}) for name in RWKV] + [saved(name) for name in _DESCRIBED]
    return [_safetensors(arrays, metadata) for arrays, metadata in models]


def _safetensors(arrays: Arrays, metadata: dict[str, str], name: str = "m.safetensors") -> Seed:
    return _of_arrays(name, arrays, lambda changed: write_safetensors(changed, metadata), safetensors_edits.edited)


def quantised_files() -> list[Seed]:
    """Return models of int8 and int4 as wkvnp saves them."""
    kinds = [("rwkv7", "int8"), ("rwkv6", "int4"), ("transformer", "int8"), ("mamba2", "int4")]
    return [_safetensors(*saved(architecture, 32, dtype)) for architecture, dtype in kinds]


INDEX = "model.safetensors.index.json"
_INDEX_WORDS = (
    "a.safetensors",
    "b.safetensors",
    "c.safetensors",
    INDEX,
    ".",
    "..",
    "/etc/passwd",
    "a\0",
    "C:x",
    "a" * 300,
)


def index_folders() -> list[Seed]:
    """Return models in three shards: one by its index, one by its folder with a configuration."""
    golden = Path(__file__).resolve().parents[1] / "golden" / "mistral"
    config = {"config.json": (golden / "config.json").read_bytes()}
    return [_sharded(_tiny("rwkv7"), {}, INDEX), _sharded(tensors_in(golden / "model.safetensors"), config, "")]


def _sharded(arrays: Arrays, more: Files, opened: str) -> Seed:
    names = list(arrays)
    cut = (0, len(names) // 3, len(names) // 2, len(names))
    shards = {
        f"{letter}.safetensors": write_safetensors({name: arrays[name] for name in names[cut[n] : cut[n + 1]]})
        for n, letter in enumerate("abc")
    }
    where = {name: f"{'abc'[n]}.safetensors" for n in range(3) for name in names[cut[n] : cut[n + 1]]}
    index = {"metadata": {"total_size": sum(array.nbytes for array in arrays.values())}, "weight_map": where}
    files = {**more, **shards, INDEX: json.dumps(index).encode()}

    def mutate(rng: random.Random) -> Files:
        changed = dict(files)
        choice, shard = rng.random(), rng.choice(list(shards))
        if choice < 0.5:
            changed[INDEX] = json_edits.written(json_edits.edited(index, rng, _INDEX_WORDS), rng)
        elif choice < 0.6:
            changed[INDEX] = byte_edits.edited(files[INDEX], rng)
        elif choice < 0.85:
            changed[shard] = safetensors_edits.edited(files[shard], rng)
        elif choice < 0.9:
            del changed[shard]
        elif choice < 0.95:
            changed[shard] = files[rng.choice(list(shards))]
        else:
            part = {name: arrays[name] for name, file in where.items() if file == shard}
            changed[shard] = write_safetensors(array_edits.edited(part, rng))
        return changed

    return Seed(files, opened, mutate)


def ggmf_files() -> list[Seed]:
    """Return RWKV models as rwkv.cpp has them, of 8 channels, and of 32 in quantised types."""
    seeds = []
    for name, kind in (
        ("rwkv4", "FP32"),
        ("rwkv5.0", "FP32"),
        ("rwkv5.2", "FP16"),
        ("rwkv6", "FP32"),
        ("rwkv7", "FP16"),
    ):
        seeds.append(_ggmf(_tiny(name), name, kind))
    for name, kind in (("rwkv7", "Q8_0"), ("rwkv6", "Q5_1"), ("rwkv4", "Q4_0")):
        seeds.append(_ggmf(saved(name, 32)[0], name, kind))
    return seeds


def _ggmf(arrays: Arrays, architecture: str, kind: str) -> Seed:
    stored = ggmf_writer.as_stored(arrays, architecture)
    sizes = (*arrays["emb.weight"].shape, len({name.split(".")[1] for name in arrays if name.startswith("blocks.")}))

    def write(changed: Arrays) -> bytes:
        table = changed.get("emb.weight")
        stated = (*table.shape, sizes[2]) if table is not None and table.ndim == 2 else sizes
        parameters = [ggmf_writer.header(*stated, ggmf_writer.TYPES[kind])]
        for name, array in changed.items():
            which = ggmf_writer.type_of(name, array, kind)
            which = which if which in ("FP32", "FP16") or array.size % 32 == 0 else "FP32"
            with np.errstate(all="ignore"):
                data = ggmf_writer.encode(which, array)
            parameters.append(ggmf_writer.parameter(name, array.shape, ggmf_writer.TYPES[which], data))
        return b"".join(parameters)

    data = write(stored)

    def mutate(rng: random.Random) -> Files:
        if rng.random() < 0.6:
            return {"m.bin": ggmf_edits.edited(data, rng)}
        numbers = {name: array for name, array in array_edits.edited(stored, rng).items() if array.dtype != BFLOAT16}
        return {"m.bin": write({name: array.astype(np.float32) for name, array in numbers.items()})}

    return Seed({"m.bin": data}, "m.bin", mutate)


def gguf_files() -> list[Seed]:
    """Return models of every architecture as llama.cpp has them, two with vocabularies, and all types of blocks."""
    seeds = []
    for architecture, write in (("rwkv7", written_as_rwkv7), ("rwkv6", lambda arrays: written_as_rwkv6(arrays, 0))):
        made = model(architecture, n_layer=2, n_embd=16)
        arrays = {name: np.asarray(array) for name, array in flatten(made.stored).items()}
        seeds.append(_gguf(metadata_of(made), write(arrays)))
    for architecture, biases in (("llama", ""), ("qwen2", "qkv")):
        tensors = written_decoder(decoder(biases), architecture == "llama")
        seeds.append(_gguf(decoder_metadata(architecture) | _vocabulary(architecture), tensors))
    seeds += [
        _gguf(backbone_metadata(architecture), written_backbone(backbone(architecture), architecture))
        for architecture in ("mamba", "mamba2")
    ]
    rng = np.random.default_rng(0)
    blocks: dict[str, Any] = {
        kind: Packed(kind, (2, 256), random_blocks(kind, packed_size(kind, (2, 256)), rng))
        for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
    }
    return [*seeds, _gguf({"general.architecture": "rwkv7"}, blocks, complete=False)]


def _vocabulary(architecture: str) -> dict[str, Any]:
    """Return a vocabulary of 24 tokens: in pieces with scores, or byte-level with merges."""
    if architecture == "llama":
        tokens = [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(65, 78)),
            "▁",
            "t",
            "h",
            "e",
            "▁t",
            "he",
        ]
        tokens += ["▁the", "o"]
        kinds = [Typed(5, kind) for kind in [2, 3, 3] + [6] * 13 + [1] * 8]
        scores = [float(-n) for n in range(24)]
        more = {"tokenizer.ggml.scores": scores, "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.model": "llama"}
    else:
        tokens = [*"abcdefghijklmnopqr", "Ġ", "Ċ", "ab", "Ġt", "<|endoftext|>", "<|im_end|>"]
        kinds = [Typed(5, kind) for kind in [1] * 22 + [3] * 2]
        more = {"tokenizer.ggml.merges": ["a b", "Ġ t"], "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.model": "gpt2"}
    more |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    return more | {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}


def _gguf(metadata: dict[str, Any], tensors: dict[str, Any], complete: bool = True) -> Seed:
    plain = {name: array for name, array in tensors.items() if not isinstance(array, Packed)}
    blocks = {name: packed(array) for name, array in tensors.items() if isinstance(array, Packed)}

    def mutate(rng: random.Random) -> Files:
        changed: dict[str, Any] = dict(tensors)
        if plain and rng.random() < 0.4:
            kinds = ("float32", "float16", "bfloat16")
            edited = array_edits.edited(plain, rng).items()
            changed = {
                n: a if a.dtype == BFLOAT16 or a.dtype.name in kinds else a.astype(np.float32) for n, a in edited
            }
            if rng.random() < 0.7:
                return {"m.gguf": write_gguf(metadata, changed | blocks)}
        return {"m.gguf": gguf_edits.written(metadata, changed, rng)}

    return Seed({"m.gguf": write_gguf(metadata, tensors)}, "m.gguf", mutate, complete)
