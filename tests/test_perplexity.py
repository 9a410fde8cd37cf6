"""Scoring a text: against a table that is known, in any cut, and with memory that does not grow with the text."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import wkvnp
from wkvnp.analysis import score
from wkvnp.checkpoints import save_safetensors
from wkvnp.checkpoints.naming import flatten
from wkvnp.cli import main
from wkvnp.cli.json_text import json_text
from wkvnp.errors import ArgumentError
from wkvnp.tokenizers import load_tokenizer

BYTES = load_tokenizer("bytes")


class Bigram:
    """The next token depends on this one, and on how many there were: logits come from a table."""

    def __init__(self, vocab_size=256, rows=256):
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.table = np.random.default_rng(1).standard_normal((rows, vocab_size)).astype(np.float32) * 2
        self.longest = 0

    def __call__(self, tokens, state=None, logits="last"):
        assert logits == "all" and tokens.ndim == 1
        self.longest = max(self.longest, len(tokens))
        start = 0 if state is None else state
        rows = (tokens + np.arange(start, start + len(tokens))) % len(self.table)
        return self.table[rows], start + len(tokens)


def plain_logprobs(model, ids):
    result = []
    for place, (token, target) in enumerate(itertools.pairwise(ids)):
        row = [float(value) for value in model.table[(token + place) % len(model.table)]]
        result.append(row[target] - math.log(math.fsum(math.exp(value) for value in row)))
    return result


def test_logprobs_and_sums_are_those_of_the_table():
    model, text = Bigram(), "So we scored it: été 🙂."
    ids = list(text.encode())
    result = score(model, BYTES, text)
    expected = plain_logprobs(model, ids)
    np.testing.assert_allclose(result.logprobs, expected, rtol=1e-12)
    assert result.logprobs.dtype == np.float64
    assert result.tokens.tolist() == ids[1:] and result.context == ids[0]
    assert b"".join(result.pieces) == text.encode()[1:]
    assert result.n_bytes == len(ids) - 1
    assert math.isclose(result.nats, -math.fsum(expected))
    assert math.isclose(result.bits_per_byte, result.nats / math.log(2) / (len(ids) - 1))
    assert math.isclose(result.perplexity, math.exp(result.nats / (len(ids) - 1)))


def test_ranks_and_top1():
    model = Bigram()
    greedy = [7]
    for place in range(20):
        greedy.append(int(model.table[(greedy[-1] + place) % 256].argmax()))
    assert score(model, BYTES, greedy).top1 == 1.0
    result = score(model, BYTES, "any text")
    rows = model.table[(np.array(list(b"any tex")) + np.arange(7)) % 256]
    assert result.ranks.tolist() == [int((row > row[t]).sum()) for row, t in zip(rows, b"ny text", strict=True)]


def test_bos_makes_the_first_token_count():
    model = Bigram()
    result = score(model, BYTES, "abc", bos=0)
    assert result.tokens.tolist() == [97, 98, 99] and result.context == 0 and result.n_bytes == 3
    np.testing.assert_allclose(result.logprobs, plain_logprobs(model, [0, 97, 98, 99]), rtol=1e-12)
    ending = load_tokenizer("bytes")
    ending.end_of_text = 0
    assert np.array_equal(score(model, ending, "abc").logprobs, result.logprobs)
    assert score(model, ending, "abc", state=0).tokens.tolist() == [98, 99]


@pytest.mark.parametrize("chunk", [1, 3, 16, 17, 1000])
def test_chunks_do_not_matter(chunk):
    model, calls = Bigram(), []
    ids = np.random.default_rng(0).integers(0, 256, 100)
    whole = score(Bigram(), BYTES, ids)
    result = score(model, BYTES, ids, chunk=chunk, progress=lambda *at: calls.append(at))
    assert np.array_equal(result.logprobs, whole.logprobs) and np.array_equal(result.ranks, whole.ranks)
    assert model.longest <= chunk
    assert calls[-1] == (99, 99) and len(calls) == -(-99 // chunk)


def test_a_text_can_be_scored_in_parts():
    ids = np.random.default_rng(0).integers(0, 256, 50)
    whole = score(Bigram(), BYTES, ids)
    first = score(Bigram(), BYTES, ids[:20])
    second = score(Bigram(), BYTES, ids[20:], bos=first.tokens[-1], state=first.state)
    assert np.array_equal(np.concatenate([first.logprobs, second.logprobs]), whole.logprobs)


def test_memory_is_that_of_a_chunk():
    model = Bigram(vocab_size=20000, rows=8)
    tokenizer_ = SimpleNamespace(end_of_text=None, token_bytes=lambda token: b"ab")
    ids = np.random.default_rng(0).integers(0, 20000, 2000)
    tracemalloc.start()
    result = score(model, tokenizer_, ids, chunk=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.n_bytes == 2 * 1999
    assert peak < 2 * 64 * 20000 * 4 + 4 * 16 * 20000 * 8


def test_extreme_logits_stay_finite():
    model = Bigram(rows=1)
    model.table[:] = -3e38
    model.table[0, 65] = 3e38
    assert score(model, BYTES, "AA").logprobs[0] == 0.0
    result = score(model, BYTES, "AB")
    assert np.isfinite(result.nats) and result.perplexity == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "command", [["generate", "Hi", "-n", "2"], ["score", "Hi there"], ["score", "Hi", "--format", "json"]]
)
def test_weights_that_are_no_numbers_are_refused(bad, command, tmp_path, capsys):
    made = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    arrays = flatten(made.stored) | {"ln_out.bias": np.full(64, bad, np.float32)}
    save_safetensors(tmp_path / "m.safetensors", arrays, made.config.metadata())
    words = "logits must be finite or minus infinity, at least one of them finite; their maximum is"
    with pytest.raises(ArgumentError, match=words):
        score(wkvnp.load(tmp_path / "m.safetensors"), BYTES, "Hi there")
    capsys.readouterr()
    assert main([*command, "--model", str(tmp_path / "m.safetensors")]) != 0
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err


def test_json_is_valid_json_for_every_number():
    text = json_text(
        {"perplexity": math.inf, "rows": [{"logprob": -math.inf}, {"logprob": math.nan}, {"logprob": -1.5}]}
    )
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
        "perplexity": None,
        "rows": [{"logprob": None}, {"logprob": None}, {"logprob": -1.5}],
    }


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "at least one token to score after the first, which is only context.* got 0 tokens"),
        ("a", {}, "got 1 tokens"),
        ("", {"bos": 0}, "at least one token to score; got 0 tokens"),
        ([[1, 2]], {}, r"shape \(T,\); got shape \(1, 2\)"),
        ([0.5, 1.0], {}, "float64"),
        ("abc", {"chunk": 0}, "chunk must be an integer of at least 1; got 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(text, options, words):
    with pytest.raises(ArgumentError, match=words):
        score(Bigram(), BYTES, text, **options)
