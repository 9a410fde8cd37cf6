"""What people type who know another library: an answer in one line, with the word that is ours."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp.cli import main
from wkvnp.errors import ArgumentError, CheckpointError, KeywordError, TokenizerError, WkvnpError
from wkvnp.generation import Chat
from wkvnp.mechanisms import NAMES
from wkvnp.mechanisms.favor import favor_matrix
from wkvnp.mechanisms.random_blocks import draw_random_blocks

MODEL = wkvnp.random_model("rwkv7", n_layer=3, n_embd=64, vocab_size=256, rng=0)
BYTES = wkvnp.load_tokenizer("bytes")
X = np.full((1, 3, 2, 4), 0.1)
WITHOUT = {"cost", "favor_features", "favor_matrix", "favor_relative_std"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wkvnp.generate(MODEL, "bytes", "a"), r"generate: tokenizer must be .*; got the text 'bytes'; "
         r"wkvnp.load_tokenizer\('bytes'\) makes one of a name; the order is generate\(model, tokenizer, prompt\)"),
        (lambda: wkvnp.generate(MODEL, "a", BYTES), r"generate: tokenizer must be .*; got the text 'a'"),
        (lambda: wkvnp.generate(BYTES, MODEL, "a"), r"generate: model must be a model, .*; got <tokenizer bytes"),
        (lambda: wkvnp.generate("m.pth", BYTES, "a"), r"generate: model must be a model, .*; got the text 'm.pth'"),
        (lambda: wkvnp.generate(MODEL, None, "a"), r"generate: tokenizer must be a tokenizer, .*; got None"),
        (lambda: wkvnp.score(BYTES, MODEL, "a"), r"score: model must be .*; the order is score\(model, tok"),
        (lambda: wkvnp.score(MODEL, "abc", BYTES), r"score: tokenizer must be a tokenizer, .*; got the text 'abc'"),
        (lambda: wkvnp.score("abc", MODEL, BYTES), r"score: model must be a model, .*; got the text 'abc'"),
        (lambda: wkvnp.score(MODEL, MODEL, "abc"), r"score: tokenizer must be a tokenizer, .*; got <rwkv7"),
        (lambda: Chat(BYTES, MODEL), r"Chat: model must be a model"),
        (lambda: Chat(MODEL, "bytes"), r"Chat: tokenizer must be a tokenizer"),
        (lambda: MODEL([1], hidden="all"), r"hidden must be a list .* from 0 to 2, .* range\(3\) for all; got 'all'"),
        (lambda: MODEL([1], hidden=2), r"model: hidden must be a list of layers from 0 to 2, as \[2\], .*; got 2"),
        (lambda: MODEL([1], hidden=True), r"model: hidden must be a list of layers"),
        (lambda: MODEL([1], hidden=[0.5]), r"model: hidden must be a list of layers"),
        (lambda: wkvnp.attention_matrix(MODEL, "abc"), r"attention_matrix: mechanism must be .*; got the model <rwkv7"),
        (lambda: wkvnp.load("owner/name"), r"owner/name: no such file; models are not loaded by their name on a hub"),
        (lambda: wkvnp.convert("owner/name-7b", "x"), r"not loaded by their name on a hub.*hf download owner/name-7b"),
        (lambda: wkvnp.load_tokenizer("owner/name"), r"nor a file; models are not loaded by their name on a hub"),
        (lambda: wkvnp.load("owner/name.pth"), r"owner/name.pth: no such file$"),
        (lambda: wkvnp.State.load(MODEL, "a"), r"State.load: model must be .*'a'; the order is State.load"),
        (lambda: wkvnp.State.load(MODEL, MODEL), r"path must be the name of a file or folder; got <rwkv7"),
        (lambda: wkvnp.warmup("m.pth"), r"warmup: model must be a model, as wkvnp.load returns; got the text 'm.pth'"),
        (lambda: wkvnp.generate(MODEL, BYTES, "a", state="f"), r"generate: state must be a state, .*; got 'f'"),
        (lambda: wkvnp.load(3), r"path must be the name of a file or folder; got 3"),
    ],
)  # fmt: skip
def test_arguments_in_each_others_place(call: Any, words: str) -> None:
    with pytest.raises(WkvnpError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rng", [-3, "abc", 1.5, True, [-1]])
def test_seeds(rng: Any) -> None:
    small: dict[str, Any] = {"n_layer": 1, "n_embd": 64, "vocab_size": 8}
    for name, call in {
        "generate": lambda: wkvnp.generate(MODEL, BYTES, "a", rng=rng),
        "Chat": lambda: Chat(MODEL, BYTES, rng=rng),
        "random_model": lambda: wkvnp.random_model("rwkv7", rng=rng, **small),
        "favor_matrix": lambda: favor_matrix(4, 2, rng),
        "draw_random_blocks": lambda: draw_random_blocks(rng, 6, 2),
    }.items():
        with pytest.raises(
            ArgumentError, match=f"^{name}: rng must be a whole number from 0.*; got {re.escape(repr(rng))}"
        ):
            call()


@pytest.mark.parametrize(
    ("name", "keyword", "words"),
    [
        ("softmax_attention", "is_causal", "here it is causal=; it takes q, k, v, slopes, sinks, causal, window"),
        ("softmax_attention", "attn_mask", "there are no masks, .*; causal= says .*; cu_seqlens= packs"),
        ("softmax_attention", "dropout_p", "forward only"),
        ("softmax_attention", "softmax_scale", "here it is scale="),
        ("softmax_attention", "enable_gqa", "are groups"),
        ("softmax_attention", "casual", "here it is causal="),
        ("forgetting_attention", "is_causal", "it takes q, k, v"),
        ("longformer", "window_size", "here it is window="),
        ("gla", "initial_state", "here it is state="),
        ("gla", "output_final_state", "the state is always returned"),
        ("gla", "g", "here it is log_decay="),
        ("rwkv7", "w", "here it is log_decay="),
        ("rwkv7", "scale", "it takes r, log_decay, k, v, a, b, reverse, cu_seqlens, state$"),
        ("generate", "max_new_tokens", "here it is max_tokens="),
        ("generate", "do_sample", "temperature=0 is greedy"),
        ("generate", "seed", "here it is rng="),
        ("load", "torch_dtype", "here it is dtype="),
        ("load", "device_map", "it computes where the arrays are"),
        ("score", "batch_size", "it takes model, tokenizer, text"),
        ("load_tokenizer", "path", "it takes source"),
        ("__call__", "input_ids", "^model: there is no argument 'input_ids'; here it is tokens="),
        ("__call__", "output_hidden_states", "here it is hidden="),
        ("__call__", "attention_mask", "tokens may be a list of sequences"),
    ],
)
def test_keywords_of_other_libraries(name: str, keyword: str, words: str) -> None:
    function = MODEL.__call__ if name == "__call__" else getattr(wkvnp, name)
    with pytest.raises(KeywordError, match=words) as caught:
        function(**{keyword: 1})
    assert isinstance(caught.value, TypeError) and f"there is no argument {keyword!r}" in str(caught.value)


def test_every_public_function_names_its_keywords() -> None:
    for name in sorted(set(wkvnp.__all__) - WITHOUT):
        function = getattr(wkvnp, name)
        parameters = inspect.signature(function).parameters.values() if inspect.isfunction(function) else ()
        if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            with pytest.raises(KeywordError, match=f"^{name}: there is no argument 'nonsense'; it takes "):
                function(nonsense=1)
    for name in NAMES:
        with pytest.raises(KeywordError, match=f"^{name}: there is no argument 'nonsense'; it takes "):
            wkvnp.attention_matrix(name, nonsense=1)


def test_options_of_init_are_named() -> None:
    small: dict[str, Any] = {"n_layer": 1, "n_embd": 64, "vocab_size": 8}
    with pytest.raises(
        ArgumentError, match=r"mamba1 has no option 'seed'; here it is rng=; it takes .*head_size.*n_state"
    ):
        wkvnp.random_model("mamba1", seed=0, **small)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tokenizer.json", '{"version": "1.0"}', "a tokenizer, not a model; .*--tokenizer"),
        ("t.json", '{\n  "version": "1.0",\n  "truncation": null,\n  "padding": null', "a tokenizer, not a model"),
        ("config.json", "{}", "a configuration, not a checkpoint; give the folder"),
        ("c.json", '{"model_type": "llama"}', "a configuration, not a checkpoint; give the folder"),
        ("v.txt", "1 '\\x00' 1\n2 '\\x01' 1\n", "a vocabulary of RWKV, not a model"),
        ("other.json", "{}", "weight_map"),
    ],
)
def test_neighbours_of_a_checkpoint(
    tmp_path: Path, name: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        wkvnp.load(tmp_path / name)
    assert main(["generate", "--model", str(tmp_path / name), "a"]) == 1
    err = capsys.readouterr().err
    assert re.search(words, err) and err.count("\n") == 1


def test_a_name_of_a_hub_as_model_or_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["generate", "--model", "owner/name", "a"],
        ["info", "owner/name"],
        ["tokenize", "--tokenizer", "owner/name", "a"],
    ):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "hf download owner/name --local-dir FOLDER" in err and err.count("\n") == 1
    with pytest.raises(TokenizerError):
        wkvnp.load_tokenizer(5)
