"""The Transformer: against what transformers says, against the papers in float64, and what a folder may not say."""

import json
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformer_oracle
from contracts.tolerance import CUT
from hugging_face_folder import fields_in, tensors_in, write_folder
from state_arrays import arrays_of, assert_close

import wkvnp
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp.checkpoints import save_safetensors
from wkvnp.errors import CheckpointError
from wkvnp.mechanisms.softmax_attention import KVCache
from wkvnp.models import transformer
from wkvnp.models.rotary_scaling import Rotary, Rotation, rotary_of
from wkvnp.models.settings import Settings

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = ["llama", "mistral", "qwen2", "qwen3"]
SCALINGS = json.loads((GOLDEN / "llama" / "scalings.json").read_text())
TOKENS = np.random.default_rng(1).integers(0, 53, 300)


def fields_of(folder: str) -> dict[str, Any]:
    return fields_in(GOLDEN / folder)


def tensors_of(folder: str, name: str = "model") -> dict[str, np.ndarray]:
    return tensors_in(GOLDEN / folder / f"{name}.safetensors")


# What transformers says


@pytest.mark.parametrize("folder", FOLDERS)
def test_logits_are_those_of_transformers(folder: str) -> None:
    model, stored = wkvnp.load(GOLDEN / folder), tensors_of(folder, "expected")
    tokens, expected = stored["tokens"], stored["logits"]
    logits, final = model(tokens, logits="all")
    assert np.abs(logits - expected).max() <= 1e-4
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    state = None
    for token, row in zip(tokens, expected, strict=True):
        logits, state = model([token], state=state)
        assert np.abs(logits - row).max() <= 1e-4
        assert logits.argmax() == row.argmax()
    assert state is not None
    assert_close(state, final, CUT)
    double, _ = wkvnp.load(GOLDEN / folder, dtype="float64")(tokens, logits="all")
    assert np.abs(double - expected).max() <= 1e-12


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("spelling", ["old", "older", "new"])
def test_every_scaling_of_positions(name: str, spelling: str, tmp_path: Path) -> None:
    fields, stored, scaling = fields_of("llama"), tensors_of("llama", "expected"), dict(SCALINGS[name])
    if spelling == "new":
        del fields["rope_scaling"]
        fields["rope_parameters"] = scaling | {"rope_theta": fields.pop("rope_theta")}
    else:
        scaling["type" if spelling == "older" else "rope_type"] = scaling.pop("rope_type")
        fields["rope_scaling"] = scaling
    folder = write_folder(tmp_path / "m", tensors_of("llama"), fields)
    logits, _ = wkvnp.load(folder, dtype="float64")(stored["tokens"], logits="all")
    assert np.abs(logits - stored[f"logits.{name}"]).max() <= 1e-12
    others = [key for key in stored if key.startswith("logits.") and key != f"logits.{name}"]
    assert all(np.abs(logits - stored[key]).max() > 1e-3 for key in others)


def test_words_that_mean_the_same(tmp_path: Path) -> None:
    expected, arrays = wkvnp.load(GOLDEN / "qwen2")(TOKENS)[0], tensors_of("qwen2")
    fields = fields_of("qwen2")
    del fields["layer_types"]  # the first `max_window_layers` see everything
    np.testing.assert_array_equal(wkvnp.load(write_folder(tmp_path / "a", arrays, fields))(TOKENS)[0], expected)
    fields |= {"layer_types": ["full_attention", *["sliding_attention"] * 2], "max_window_layers": 3}
    np.testing.assert_array_equal(wkvnp.load(write_folder(tmp_path / "b", arrays, fields))(TOKENS)[0], expected)
    fields |= {"use_sliding_window": False, "layer_types": None, "max_window_layers": 0}
    assert np.abs(wkvnp.load(write_folder(tmp_path / "c", arrays, fields))(TOKENS)[0] - expected).max() > 1e-3


# What the papers say


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize(
    "told",
    [
        {"model_type": "llama", "attention_bias": True},
        {"model_type": "llama", "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 4},
        {"model_type": "mistral", "sliding_window": 6, "head_dim": 14},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        {"model_type": "qwen3", "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        {"model_type": "qwen3", "rope_scaling": {**SCALINGS["yarn"], "factor": 3, "beta_fast": 20.0}},
        {"rope_scaling": SCALINGS["yarn"]},
        {"rope_scaling": fields_of("llama")["rope_scaling"]},
    ],
    ids=str,
)
def test_logits_are_those_of_the_papers(told: dict[str, Any], dtype: str, tolerance: float, tmp_path: Path) -> None:
    fields = {"model_type": "llama", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2}
    fields |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 31, "rope_theta": 50.0}
    fields |= {"rms_norm_eps": 1e-2, "rope_scaling": None, "tie_word_embeddings": False} | told
    biased = {"llama": ("qkvo" if told.get("attention_bias") else ""), "qwen2": "qkv"}.get(fields["model_type"], "")
    rng, D, C, F = np.random.default_rng(0), fields["head_dim"], 24, 20
    Q, P = 4 * D, fields["num_key_value_heads"] * D
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (31, C), "model.norm.weight": (C,)}
    if not fields["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (31, C)
    for n in range(2):
        here = f"model.layers.{n}."
        maps = {f"self_attn.{c}_proj": shape for c, shape in zip("qkvo", ((Q, C), (P, C), (P, C), (C, Q)), strict=True)}
        maps |= {"mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}
        shapes |= {f"{here}{name}.weight": shape for name, shape in maps.items()}
        with_bias = [f"self_attn.{c}_proj" for c in biased] + [m for m in maps if "mlp" in m and told.get("mlp_bias")]
        shapes |= {f"{here}{name}.bias": maps[name][:1] for name in with_bias}
        shapes |= {f"{here}{name}_layernorm.weight": (C,) for name in ("input", "post_attention")}
        if fields["model_type"] == "qwen3":
            shapes |= {f"{here}self_attn.{c}_norm.weight": (D,) for c in "qk"}
    arrays = {
        name: (rng.standard_normal(shape) * (0.5 if len(shape) < 2 else 1.5 * shape[1] ** -0.5)).astype(np.float32)
        for name, shape in shapes.items()
    }
    model, tokens = wkvnp.load(write_folder(tmp_path / "m", arrays, fields), dtype=dtype), TOKENS[:30] % 31
    windows = [*(fields.get("sliding_window") if fields["model_type"] == "mistral" else None,) * 2]
    if fields["model_type"] == "qwen2":
        windows = [None, 9]
    double = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected = transformer_oracle.logits(double, fields, tokens, windows)
    logits, _ = model(tokens, logits="all")
    assert np.abs(logits - expected).max() <= tolerance
    ragged = [tokens[:9], tokens[9:11], tokens[11:]]
    for part, answer in zip(ragged, model(ragged, logits="all")[0], strict=True):
        assert np.abs(answer - transformer_oracle.logits(double, fields, part, windows)).max() <= tolerance


# The state


def test_a_window_keeps_the_state_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model, state, sizes = wkvnp.load(GOLDEN / "mistral"), None, []
    rows = []
    for token in TOKENS:
        logits, state = model([token], state=state)
        rows.append(logits)
        sizes.append(state.nbytes)
    assert state is not None
    for layer in state.layers:
        assert layer.seen.tolist() == [300] and int(layer.kv.lengths[0]) == 300 - (300 - 10) // 64 * 64
    a_token = model.config.state_bytes_per_token
    assert max(sizes) <= (10 + 63) * a_token + 2 * 8 and sizes[63] > 10 * a_token
    _, at_once = model(TOKENS)
    assert arrays_of(at_once).keys() == arrays_of(state).keys()
    assert_close(state, at_once, CUT)
    monkeypatch.setattr(KVCache, "within", lambda self, window: self)
    kept = None
    for token, row in zip(TOKENS, rows, strict=True):
        logits, kept = model([token], state=kept)
        np.testing.assert_array_equal(logits, row)
    assert kept is not None and kept.nbytes > 300 * a_token


def test_a_state_with_a_window_can_be_saved_joined_and_continued(tmp_path: Path) -> None:
    model = wkvnp.load(GOLDEN / "qwen2")
    ragged = [TOKENS[:200], TOKENS[3:5], TOKENS[50:170]]
    _, together = model(ragged)
    lengths = [int(layer.kv.lengths[0]) for layer in together.layers]
    assert lengths == [200, 72, 72]  # the first layer has no window, the others one of 70
    _, states = zip(*(model(part) for part in ragged), strict=True)
    expected, _ = model(TOKENS[:9].reshape(3, 3), state=together)
    answer, _ = model(TOKENS[:9].reshape(3, 3), state=wkvnp.State.join(list(states)))
    assert np.abs(answer - expected).max() <= CUT
    together.save(tmp_path / "s")
    restored = wkvnp.State.load(tmp_path / "s", model)
    np.testing.assert_array_equal(model(TOKENS[:9].reshape(3, 3), state=restored)[0], expected)
    assert_close(restored, together)
    for n, part in enumerate(ragged):
        after = np.concatenate([part, TOKENS[3 * n : 3 * n + 3]])
        assert np.abs(model(after)[0] - expected[n]).max() <= CUT


# Positions


def test_angles_keep_their_digits_late_in_a_text() -> None:
    turns = Rotation(Rotary(size=8, theta=1e6), np.dtype("f4"))
    late = np.array([0, 123_456_789, 10])
    cos, sin, seen = turns(late, np.array([0, 2, 4, 4]))
    assert seen.tolist() == [2, 123_456_791, 10]
    for row, position in enumerate((0, 1, 123_456_789, 123_456_790)):
        for pair in range(4):
            exact = Fraction(position) * Fraction(1e6 ** (-pair / 4))
            angle = float(exact % Fraction(2 * np.pi))  # 2 pi itself is off by 1e-16 a turn
            assert abs(cos[row, pair] - np.cos(angle)) <= 1e-6 and abs(sin[row, pair] - np.sin(angle)) <= 1e-6


def test_layers_share_cosines_but_calls_and_threads_do_not() -> None:
    turns = Rotation(Rotary(size=4, theta=10.0), np.dtype("f8"))
    offsets, seen = np.array([0, 1, 3]), np.array([5, 0])
    first = turns(seen, offsets)
    assert turns(seen, offsets) is first and turns(seen.copy(), offsets) is first
    assert turns(seen + 1, offsets)[0][0, 0] == np.cos(6.0)
    assert turns(seen, offsets.copy())[0][0, 0] == np.cos(5.0)
    model = wkvnp.load(GOLDEN / "qwen3")
    parts = [TOKENS[n : n + 20 + n] for n in range(8)]
    expected = [model(part, logits="all")[0] for part in parts]
    start, found = threading.Barrier(8), dict[int, list[np.ndarray]]()

    def work(n: int) -> None:
        start.wait()
        found[n] = [model(parts[n], logits="all")[0] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, answer in enumerate(expected):
        assert len(found[n]) == 20
        for again in found[n]:
            np.testing.assert_array_equal(again, answer)


def test_scalings_of_published_models() -> None:
    """The slowest and the fastest pairs, and one between, by hand."""
    llama = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0}}
    llama["rope_scaling"] |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    rates, plain = rotary_of(Settings(llama, "a"), 64).rates(), 5e5 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(rates[:15], plain[:15], rtol=1e-14)
    np.testing.assert_allclose(rates[19:], plain[19:] / 32, rtol=1e-14)
    turns = 8192 * plain[16] / (2 * np.pi)
    assert 1 < turns < 4
    assert rates[16] == pytest.approx(plain[16] * ((turns - 1) / 3 + (4 - turns) / 3 / 32), rel=1e-12)
    yarn = {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 32768}
    rotary = rotary_of(Settings(yarn, "b"), 128)
    assert rotary.attention_factor == pytest.approx(1.138629436111989, rel=1e-12)  # 0.1 ln 4 + 1
    quotient = rotary.rates() / 1e6 ** (-np.arange(64) / 64)
    np.testing.assert_allclose(quotient[[0, 23, 40, 63]], [1, 1, 0.25, 0.25], rtol=1e-12)
    assert quotient[31] == pytest.approx(1 - 0.75 * (31 - 23) / (40 - 23), rel=1e-12)


# Folders of published models


LLAMA_32 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                     "original_max_position_embeddings": 8192},
    "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
LLAMA_1 = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 11008, "initializer_range": 0.02, "max_sequence_length": 2048,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 0,
    "rms_norm_eps": 1e-06, "torch_dtype": "float16", "transformers_version": "4.27.0.dev0", "use_cache": True,
    "vocab_size": 32000,
}  # fmt: skip
SMOL = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
    "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
    "transformers_version": "4.42.3", "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "vocab_size": 49152,
}  # fmt: skip
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": True,
    "vocab_size": 32000,
}  # fmt: skip
QWEN_25 = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02, "intermediate_size": 8960,
    "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 12,
    "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 131072, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.40.1",
    "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN_3 = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
TINY_LLAMA = {**LLAMA_1, "num_key_value_heads": 4, "attention_bias": False, "pretraining_tp": 1, "rope_scaling": None}


@pytest.mark.parametrize(
    ("fields", "millions", "windows"),
    [
        (LLAMA_1, 6738, {None}),
        (TINY_LLAMA | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}, 1100, {None}),
        (LLAMA_32, 1236, {None}),
        (SMOL, 135, {None}),
        (MISTRAL, 7242, {4096}),
        (MISTRAL | {"sliding_window": None, "vocab_size": 32768, "rope_theta": 1e6}, 7248, {None}),
        (QWEN_25, 1544, {None}),
        (QWEN_3, 596, {None}),
    ],
    ids=["llama-1-7b", "tinyllama", "llama-3.2-1b", "smollm2", "mistral-v0.1", "mistral-v0.3", "qwen2.5", "qwen3"],
)
def test_configurations_of_published_models_are_understood(
    fields: dict[str, Any], millions: int, windows: set[int | None]
) -> None:
    settings = Settings(fields, "config.json")
    config = transformer.config_of(settings)
    settings.finish()
    numbers = sum(int(np.prod(shape)) for shape in transformer.shapes(config).values())
    assert round(numbers / 1e6) == millions and set(config.windows) == windows


def test_a_sharded_folder_in_16_bits(tmp_path: Path) -> None:
    arrays, fields = tensors_of("llama"), fields_of("llama")
    small = {name: narrow(array, BFLOAT16) for name, array in arrays.items()}
    names, where = list(small), {}
    for n, part in enumerate((names[:5], names[5:])):
        file = f"model-{n + 1:05}-of-00002.safetensors"
        save_safetensors(tmp_path / file, {name: small[name] for name in part}, {})
        where |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = wkvnp.load(tmp_path)
    assert model.config.dtype == "bfloat16"
    wide = write_folder(tmp_path / "wide", {name: widen(array) for name, array in small.items()}, fields)
    assert np.abs(model(TOKENS[:40])[0] - wkvnp.load(wide)(TOKENS[:40])[0]).max() <= CUT
    model.save(tmp_path / "alone.safetensors")
    np.testing.assert_array_equal(wkvnp.load(tmp_path / "alone.safetensors")(TOKENS)[0], model(TOKENS)[0])


def test_tensors_that_may_be_there_or_not(tmp_path: Path) -> None:
    arrays, fields = tensors_of("llama"), fields_of("llama")
    expected = wkvnp.load(GOLDEN / "llama")(TOKENS[:9])[0]

    def answer(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = wkvnp.load(write_folder(tmp_path / name, arrays, fields))(TOKENS[:9])[0]
        return logits

    rates = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.ones(5, np.float32) for n in range(2)}
    np.testing.assert_array_equal(answer("rates", arrays | rates), expected)
    head = {"lm_head.weight": arrays["model.embed_tokens.weight"]}
    np.testing.assert_array_equal(answer("head", arrays | head), expected)
    bare = {name.removeprefix("model."): array for name, array in arrays.items()}
    np.testing.assert_array_equal(answer("bare", bare), expected)
    np.testing.assert_array_equal(answer("bare-head", bare | head), expected)


def test_a_head_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    arrays, fields = tensors_of("llama"), fields_of("llama")
    head = arrays["model.embed_tokens.weight"].copy()
    head[52, 27] += 1
    folder = write_folder(tmp_path / "m", arrays | {"lm_head.weight": head}, fields)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight must be the embedding, as tie_word_embeddings says"):
        wkvnp.load(folder)
    (folder / "config.json").write_text(json.dumps(fields | {"tie_word_embeddings": False}))
    assert np.abs(wkvnp.load(folder)(TOKENS)[0] - wkvnp.load(GOLDEN / "llama")(TOKENS)[0]).max() > 1e-3
    bare = {name.removeprefix("model."): array for name, array in arrays.items()}
    with pytest.raises(CheckpointError, match=r"1 tensor is missing: lm_head\.weight"):
        wkvnp.load(write_folder(tmp_path / "bare", bare, fields | {"tie_word_embeddings": False}))


# What is refused


@pytest.mark.parametrize(
    ("folder", "wrong", "message"),
    [
        ("llama", {"logit_scale": 0.5}, "fields that wkvnp does not know may change the numbers: 'logit_scale': 0.5"),
        ("llama", {"attn_logit_softcapping": 50.0, "num_local_experts": 8}, "'num_local_experts': 8"),
        ("llama", {"quantization_config": {"bits": 4}}, "'quantization_config': {'bits': 4}"),
        ("llama", {"sliding_window": 16}, "'sliding_window': 16"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act must be 'silu' or 'swish', the only values .*; got 'gelu'"),
        ("llama", {"model_type": "gemma"}, "model_type must be one of .*llama.*qwen3.* got 'gemma'"),
        ("llama", {"rope_interleaved": True}, "'rope_interleaved': True; load.*ignore=\\['rope_interleaved'\\]"),
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads must be a divisor of num_attention_heads=4; got 3"),
        ("llama", {"num_key_value_heads": 1}, "num_key_value_heads x head_dim must be 10, as configured; the tensors"),
        ("llama", {"num_hidden_layers": 3}, "num_hidden_layers must be 3, as configured; the tensors have 2"),
        (
            "llama",
            {"num_hidden_layers": 60_000},
            "num_hidden_layers must be at most 34, the tensors that there are; got",
        ),
        (
            "llama",
            {"num_hidden_layers": 1 << 39},
            "num_hidden_layers must be a whole number from 1 to 65536; got 549755",
        ),
        ("llama", {"hidden_size": 27}, "hidden_size must be 27, as configured; the tensors have 28"),
        ("llama", {"attention_bias": False}, "has 'model.layers.0.self_attn.k_proj.bias', which a model so configured"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps must be a number above 0; got 0"),
        ("llama", {"rope_theta": "10000"}, "rope_theta must be a number above 0; got '10000'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "depend on the length of the text, so that keys in a state would have to turn anew .* got 'dynamic'",
        ),
        ("llama", {"rope_scaling": {"type": "longrope"}}, "rope_scaling: type must be .* depend on the length of the"),
        ("llama", {"rope_scaling": {"rope_type": "mrope"}}, "rope_type must be 'default' or .* got 'mrope'"),
        ("llama", {"rope_scaling": {"type": "linear", "rope_type": "yarn"}}, "type must be the same as rope_type"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor must be a number above 0; got no"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2, "beta_fast": 3}}, "'beta_fast': 3"),
        ("llama", {"rope_scaling": ["linear"]}, "rope_scaling must be an object"),
        ("llama", {"rope_scaling": LLAMA_32["rope_scaling"] | {"low_freq_factor": 4}}, "must be more than low_freq_f"),
        ("llama", {"rope_parameters": {"rope_type": "default"}}, "rope_scaling must be absent where there is rope_par"),
        ("llama", {"rope_scaling": {"rope_type": "default", "rope_theta": 5}}, "rope_theta must be 100.0, as outside"),
        ("llama", {"rope_scaling": None, "partial_rotary_factor": 0.3}, "partial_rotary_factor must be 1.0 or 1"),
        ("mistral", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters: partial_rotary_factor must"),
        ("llama", {"is_causal": False}, "'is_causal': False"),
        ("llama", {"is_causal": None}, "'is_causal': None"),
        ("qwen3", {"per_layer_config": {"0": {"rms_norm_eps": 1.0}}}, "'per_layer_config'"),
        ("llama", {"rope_scaling": {"full_attention": {"rope_theta": 5}}}, "rope_scaling: fields .*'full_attention'"),
        (
            "llama",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types must be a list of 2 times full",
        ),
        ("mistral", {"attention_bias": True}, "attention_bias must be False"),
        (
            "mistral",
            {"layer_types": ["full_attention"] * 2},
            "layer_types must be the same for all layers of a Mistral",
        ),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must be a list of 3 times full_attention or slid"),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window must be true or false; got 1"),
        ("qwen2", {"use_mrope": True}, "'use_mrope': True"),
        ("qwen2", {"dual_chunk_attention_config": {}}, "'dual_chunk_attention_config'"),
        ("qwen3", {"head_dim": None}, "num_attention_heads x head_dim must be 768, as configured; the tens"),
    ],
)
def test_fields_that_change_numbers_are_refused(
    folder: str, wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        wkvnp.load(write_folder(tmp_path / "m", tensors_of(folder), fields_of(folder) | wrong))


def test_a_mistral_must_say_what_it_sees(tmp_path: Path) -> None:
    fields = fields_of("mistral")
    del fields["sliding_window"]
    with pytest.raises(CheckpointError, match="sliding_window must be a whole number, or null; got no such field"):
        wkvnp.load(write_folder(tmp_path / "m", tensors_of("mistral"), fields))


def test_options_of_fresh_models() -> None:
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 48, "vocab_size": 53, "head_size": 8, "rng": 0}
    model = wkvnp.random_model("transformer", n_group=2, window=5, **sizes)
    assert model.weights.model.layers[0].self_attn.k_proj.weight.shape == (16, 48)
    assert model.config.windows == (5, 5) and model.config.state_bytes_per_token == 2 * 2 * 16 * 4
