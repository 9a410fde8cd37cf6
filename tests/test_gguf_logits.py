"""The same Transformer or Mamba as a Hugging Face folder and as a GGUF file gives the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_writer import write_gguf
from test_gguf_hugging_face import (
    Arrays,
    backbone,
    backbone_metadata,
    decoder,
    decoder_fields,
    decoder_metadata,
    llama3_divisors,
    written_backbone,
    written_decoder,
)

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow
from wkvnp.checkpoints import save_safetensors
from wkvnp.errors import ArgumentError, CheckpointError

TOKENS = np.random.default_rng(4).integers(0, 24, 40)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
YARN_WORDS = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 32}
BIASES = {"attention_bias": True, "mlp_bias": True}
CASES: dict[str, tuple[str, Arrays, dict[str, Any], dict[str, Any], Arrays]] = {
    "llama": ("llama", decoder(), {}, {}, {}),
    "llama, tied": ("llama", decoder(tied=True), {"tie_word_embeddings": True}, {}, {}),
    "llama, biases": ("llama", decoder("qkvoe_pn"), BIASES, {}, {}),
    "llama 3": ("llama", decoder(), {"rope_scaling": LLAMA3}, {}, {"rope_freqs.weight": llama3_divisors(8.0)}),
    "qwen2, yarn": ("qwen2", decoder("qkv"), {"rope_scaling": YARN}, YARN_WORDS, {}),
    "qwen3": ("qwen3", decoder(norms=True), {}, {}, {}),
}


def folder(path: Path, arrays: Arrays, fields: dict[str, Any]) -> wkvnp.Model:
    path.mkdir()
    save_safetensors(path / "model.safetensors", arrays, {})
    (path / "config.json").write_text(json.dumps(fields))
    return wkvnp.load(path)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_the_bits_of_a_folder(case: str, stored: str, tmp_path: Path) -> None:
    architecture, arrays, fields, entries, more = CASES[case]
    if stored == "bfloat16":
        arrays = {name: narrow(array, BFLOAT16) if array.ndim > 1 else array for name, array in arrays.items()}
    theirs = folder(tmp_path / "hf", arrays, decoder_fields(architecture) | fields)
    written = written_decoder(arrays, turn=architecture == "llama") | more
    (tmp_path / "a.gguf").write_bytes(write_gguf(decoder_metadata(architecture, **entries), written))
    model = wkvnp.load(tmp_path / "a.gguf")
    assert model.config.architecture == "transformer" and model.config.dtype == stored
    logits, state = model(TOKENS, logits="all")
    expected = theirs(TOKENS, logits="all")[0]
    assert np.ptp(expected) > 1
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(model([1], state=state)[0], theirs([1], state=theirs(TOKENS)[1])[0])
    wkvnp.convert(tmp_path / "a.gguf", tmp_path / "converted.safetensors")
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "converted.safetensors")(TOKENS, logits="all")[0], expected)


@pytest.mark.parametrize("architecture", ["mamba", "mamba2"])
def test_mambas_to_the_rounding_of_their_decays(architecture: str, tmp_path: Path) -> None:
    arrays, metadata = backbone(architecture), backbone_metadata(architecture)
    (tmp_path / "a.gguf").write_bytes(write_gguf(metadata, written_backbone(arrays, architecture)))
    model = wkvnp.load(tmp_path / "a.gguf")
    theirs = folder(tmp_path / "hf", arrays, model.config.fields)
    expected = theirs(TOKENS, logits="all")[0]
    assert np.ptp(expected) > 1
    assert np.abs(model(TOKENS, logits="all")[0] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_is_said_of_a_gguf_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(write_gguf(decoder_metadata("llama"), written_decoder(decoder("q"), turn=True)))
    with pytest.raises(CheckpointError, match=r"a\.gguf: .*self_attn\.k_proj\.bias"):
        wkvnp.load(path)
    path.write_bytes(write_gguf(decoder_metadata("llama"), written_decoder(decoder(), turn=True)))
    with pytest.raises(ArgumentError, match="group_norm_eps is for RWKV-5 to 7"):
        wkvnp.load(path, group_norm_eps=1e-5)
    path.write_bytes(write_gguf({"general.architecture": "gemma3"}, {}))
    with pytest.raises(CheckpointError, match=r"must be one of rwkv6, rwkv7, llama, qwen2, .* got 'gemma3'"):
        wkvnp.load(path)
