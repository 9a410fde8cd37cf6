"""The stream: what is drawn, shown, held back, stopped, continued and batched."""

from __future__ import annotations

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import wkvnp
from wkvnp.errors import ArgumentError
from wkvnp.generation import FORMS, Chat, Transcript, clean, generate, sample
from wkvnp.tokenizers import load_tokenizer

BYTES = load_tokenizer("bytes")


class ToyState:
    """Two numbers per sequence: how many tokens it has seen, and a hash of them."""

    def __init__(self, values):
        self.values = values
        self.batch = len(values)

    def __getitem__(self, key):
        return ToyState(self.values[[key] if isinstance(key, int) else key])

    @classmethod
    def join(cls, states):
        return cls(np.concatenate([state.values for state in states]))


class ToyModel:
    """A recurrent toy with the calls of a real model; row by row, so a batch has the bits of single runs."""

    def __init__(self, vocab_size=256):
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.table = np.random.default_rng(9).standard_normal((97, vocab_size)).astype(np.float32) * 3
        self.calls = []

    def __call__(self, tokens, state=None, logits="last"):
        tokens = np.asarray(tokens)
        self.calls.append(tokens.shape)
        values = np.zeros((len(tokens), 2), np.int64) if state is None else state.values.copy()
        assert tokens.ndim == 2 and len(values) == len(tokens) and tokens.size
        for column in tokens.T:
            values[:, 0] += 1
            values[:, 1] = (values[:, 1] * 31 + column * 7 + 3) % 1009
        return np.stack([self.logits(*row) for row in values]), ToyState(values)

    def logits(self, count, digest):
        return self.table[digest % 97] + self.table[count % 13]


class Script(ToyModel):
    """Writes the given bytes: after n tokens it is nearly sure of byte n."""

    def __init__(self, text):
        super().__init__()
        self.text = text.encode() if isinstance(text, str) else text

    def logits(self, count, digest):
        result = np.zeros(256, np.float32)
        result[self.text[count] if count < len(self.text) else 0] = 50
        return result


class Endable(type(BYTES)):
    """Bytes with an end of text."""

    def __init__(self):
        super().__init__()
        self.end_of_text = 0


def run(text, prompt="a", tokens=BYTES, **options):
    return list(generate(Script(prompt + text), tokens, prompt, temperature=0, **options))


def shown(pieces):
    return "".join(piece.text for piece in pieces)


def test_writes_until_max_tokens():
    pieces = run("bcdef", max_tokens=3)
    assert [(p.token, p.text, p.finish) for p in pieces] == [(98, "b", None), (99, "c", None), (100, "d", "length")]
    assert all(p.prompt_index == 0 and -1e-18 < -p.logprob < 1e-15 for p in pieces)


def test_no_token_wanted_still_gives_the_state_after_the_prompt():
    (piece,) = run("b", prompt="abc", max_tokens=0)
    assert (piece.token, piece.text, piece.finish, piece.logprob) == (None, "", "length", 0.0)
    assert piece.state.values[0, 0] == 3


def test_a_stop_token_is_neither_written_nor_fed():
    pieces = run("bc\0de", tokens=Endable())
    assert [(p.token, p.finish) for p in pieces] == [(98, None), (99, None), (None, "stop_token")]
    assert pieces[-1].state.values[0, 0] == 3
    assert shown(run("bc\0de", tokens=Endable(), stop_tokens=(), max_tokens=4)) == "bc\0d"
    assert shown(run("bcde", stop_tokens=[100])) == "bc"


@pytest.mark.parametrize("stop", ["\n\n", ["zzz", "\n\n"], ("\n\nD", "\n\n")])
def test_a_stop_string_over_token_borders_never_shows(stop):
    pieces = run("b\nc\n\nD", stop=stop)
    assert shown(pieces) == "b\nc"
    assert [p.finish for p in pieces[:-1]] == [None] * (len(pieces) - 1) and pieces[-1].finish == "stop"
    assert all("\n\n" not in shown(pieces[:n]) for n in range(len(pieces)))


def test_text_held_back_for_a_stop_string_is_released_when_it_cannot_come():
    pieces = run("b\nc\0", stop="\n\n", tokens=Endable())
    assert [(p.text, p.held) for p in pieces] == [("b", False), ("", True), ("\nc", False), ("", False)]
    assert shown(run("bc\n\0", stop="\n\n", tokens=Endable())) == "bc\n"
    assert shown(run("bc\n\n", stop="\n\n", max_tokens=3)) == "bc\n"


def test_half_characters_are_held_back_and_given_up_only_at_the_end():
    pieces = run("é🙂", max_tokens=6)
    assert [p.text for p in pieces] == ["", "é", "", "", "", "🙂"]
    assert [p.held for p in pieces] == [True, False, True, True, True, False]
    assert [p.text for p in run("é🙂", max_tokens=3)] == ["", "é", "\ufffd"]
    assert shown(run(b"\xffb\xc3".decode("latin-1"), max_tokens=3)) == "ÿb"


def test_text_is_the_decoded_tokens():
    for seed in range(5):
        pieces = list(generate(ToyModel(), BYTES, "seed", max_tokens=200, rng=seed, top_p=1, temperature=2))
        assert shown(pieces) == BYTES.decode([p.token for p in pieces])


def test_bans_penalties_and_logprob_follow_the_reference():
    model, rng = ToyModel(), np.random.default_rng(8)
    presence, frequency, decay, banned = 0.9, 0.4, 0.8, [101, 32]
    table: dict[int, float] = {}
    logits, state = model(BYTES.encode("go")[None])
    expected = []
    for _ in range(120):
        raw = logits[0].astype(np.float64)
        scores = raw.copy()
        scores[banned] = -np.inf
        for n, weight in table.items():
            scores[n] -= presence + weight * frequency
        token = sample(scores, rng, temperature=0.8, top_p=0.9, top_k=20)
        for n in table:
            table[n] *= decay
        table[token] = table.get(token, 0.0) + (BYTES.decode([token]) not in " \t0123456789")
        expected.append((token, raw[token] - np.log(np.exp(raw - raw.max()).sum()) - raw.max()))
        logits, state = model(np.array([[token]]), state)
    pieces = generate(
        ToyModel(), BYTES, "go", max_tokens=120, temperature=0.8, top_p=0.9, top_k=20, ban=banned,
        presence_penalty=presence, frequency_penalty=frequency, penalty_decay=decay, rng=8,
    )  # fmt: skip
    pieces = list(pieces)
    assert [p.token for p in pieces] == [token for token, _ in expected]
    np.testing.assert_allclose([p.logprob for p in pieces], [logprob for _, logprob in expected], rtol=1e-12)


def test_any_piece_can_be_continued_from():
    model = ToyModel()
    whole = list(generate(model, BYTES, "Once", max_tokens=30, rng=5))
    for cut in (0, 7, 28):
        rng = np.random.default_rng(5)
        rng.random(cut + 1)
        piece = whole[cut]
        rest = list(generate(model, BYTES, [piece.token], state=piece.state, max_tokens=29 - cut, rng=rng))
        assert [(p.token, p.logprob) for p in rest] == [(p.token, p.logprob) for p in whole[cut + 1 :]]


def test_closing_early_loses_nothing():
    model = ToyModel()
    pieces = generate(model, BYTES, "Once", max_tokens=30, rng=5)
    first = [next(pieces), next(pieces)]
    pieces.close()
    again = generate(model, BYTES, [first[-1].token], state=first[-1].state, temperature=0, max_tokens=1)
    assert next(again).token is not None


@pytest.mark.parametrize("count", [1, 3, 35])
def test_a_batch_equals_its_prompts_one_by_one(count):
    prompts = ["abc" * (i % 4 + 1) + str(i) for i in range(count)]
    options = {"max_tokens": 12, "stop": ["e", "xy"], "stop_tokens": range(16), "frequency_penalty": 0.5}
    batch = list(generate(ToyModel(), BYTES, prompts, rng=3, **options))
    singles = np.random.default_rng(3).spawn(count)
    for i, prompt in enumerate(prompts):
        alone = list(generate(ToyModel(), BYTES, prompt, rng=singles[i], **options))
        mine = [p for p in batch if p.prompt_index == i]
        facts = [(p.token, p.text, p.logprob, p.finish, p.held, p.state.values.tolist()) for p in mine]
        assert facts == [(p.token, p.text, p.logprob, p.finish, p.held, p.state.values.tolist()) for p in alone]
        assert [p.finish is None for p in mine] == [True] * (len(mine) - 1) + [False]


def test_finished_rows_leave_the_batch_and_at_most_32_decode_together():
    model = ToyModel()
    pieces = generate(model, BYTES, ["a"] * 33, max_tokens=5, rng=0, stop_tokens=range(128))
    assert {p.prompt_index for p in pieces} == set(range(33))
    sizes = [shape[0] for shape in model.calls]
    assert max(sizes) <= 32 and sizes[32] < 32


def test_a_batch_continues_from_its_states():
    model = ToyModel()
    _, state = model(BYTES.encode("xyz")[None])
    _, other = model(BYTES.encode("a long story")[None])
    both = list(generate(model, BYTES, ["k", [108, 109]], state=ToyState.join([state, other]), temperature=0))
    alone = list(generate(model, BYTES, "lm", state=other, temperature=0))
    assert [p.token for p in both if p.prompt_index == 1] == [p.token for p in alone]


def test_the_prompt_is_fed_in_chunks_with_progress():
    model, calls = ToyModel(), []
    pieces = generate(model, BYTES, ["x" * 10, "y" * 3], max_tokens=0, chunk=4, progress=lambda *at: calls.append(at))
    assert len(list(pieces)) == 2
    assert model.calls == [(1, 4), (1, 4), (1, 2), (1, 3)]
    assert calls == [(4, 13), (8, 13), (10, 13), (13, 13)]


def test_prompts_may_be_text_or_ids():
    same = ["hi", [104, 105], (104, 105), np.array([104, 105], np.uint8)]
    results = [[p.token for p in generate(ToyModel(), BYTES, prompt, max_tokens=4, rng=0)] for prompt in same]
    assert results == [results[0]] * 4


def test_ids_without_text_are_never_drawn():
    pieces = generate(ToyModel(300), BYTES, "pad", max_tokens=300, temperature=5, top_p=1, rng=0)
    assert max(p.token for p in pieces) < 256


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": []}, "prompt must not be empty"),
        ({"prompt": ["a", ""]}, r"prompt\[1\] must not be empty"),
        ({"prompt": ["a", [0.5]]}, r"prompt\[1\] must be text or token ids.*float64"),
        ({"prompt": 3.5}, "prompt must be text, token ids or a list of these; got float"),
        ({"max_tokens": -1}, "max_tokens must be an integer of at least 0; got -1"),
        ({"max_tokens": 2.5}, "max_tokens .* got 2.5"),
        ({"chunk": 0}, "chunk must be an integer of at least 1; got 0"),
        ({"temperature": -0.5}, "generate: temperature must be a number of at least 0; got -0.5"),
        ({"top_p": -1}, "generate: top_p"),
        ({"top_k": -1}, "generate: top_k"),
        ({"stop": ""}, "stop must be text of at least one character"),
        ({"stop": [3]}, "stop must be text .* got 3"),
        ({"ban": [256]}, "ban must hold token ids from 0 to 255; got 256"),
        ({"presence_penalty": np.nan}, "presence_penalty must be a finite number; got nan"),
        ({"state": ToyState(np.zeros((2, 2), np.int64))}, "state must hold 1 sequences.* got 2"),
    ],
)
def test_arguments_are_checked_at_the_call(options, words):
    with pytest.raises(ArgumentError, match=words):
        generate(ToyModel(), BYTES, **{"prompt": "a", **options})


def after(text):
    return ToyModel()(np.array([list(text.encode())]))[1].values.tolist()


@pytest.mark.parametrize(
    ("text", "options", "written"),
    [
        ("bcdef", {"max_tokens": 3}, "bcd"),
        ("bc\n\nd", {"stop": "\n\n"}, "bc"),
        ("b\nc\n\nd", {"stop": "\n\nd"}, "b\nc"),
        ("bcde", {"stop_tokens": [101]}, "bcd"),
        ("b\nde", {"stop_tokens": [101], "stop": "\nx"}, "b\nd"),
    ],
)
def test_transcript_stands_exactly_behind_the_written_text(text, options, written):
    model, transcript = Script("a" + text), Transcript()
    for piece in generate(model, BYTES, "a", temperature=0, **options):
        transcript.add(piece)
    assert transcript.text == written
    assert transcript.state(model, BYTES).values.tolist() == after("a" + written)


def test_a_conversation_is_what_one_would_write_down():
    replies = [" Fine.\n\n", " So\nlong.\n\n"]
    first = "System: Be kind.\n\nUser: How are you?\n\nAssistant:"
    written = first + replies[0] + "User: Bye\n\nAssistant:" + replies[1]
    chat = Chat(Script(written), BYTES, system="Be kind.\n\n", temperature=0)
    assert shown(chat.say("How are you?\n")) == " Fine."
    assert shown(chat.say(" Bye")) == " So\nlong."
    assert chat.state.values.tolist() == after(written)
    chat.reset()
    assert chat.state is None
    assert shown(chat.say("How are you?")) == " Fine."


def test_an_interrupted_turn_counts_as_far_as_it_was_read():
    text = "User: Hi\n\nAssistant: Well, no.\n\n"
    chat = Chat(Script(text), BYTES, temperature=0)
    pieces = chat.say("Hi")
    read = [next(pieces).text for _ in range(3)]
    pieces.close()
    assert chat.state.values.tolist() == after("User: Hi\n\nAssistant:" + "".join(read) + "\n\n")


def test_prompt_forms():
    assert clean(" a\r\n\r\n\r\nb\n") == "a\nb"
    assert FORMS["world"].turn("Hi\n\nyou") == "User: Hi\nyou\n\nAssistant:"
    assert FORMS["raven"].turn("Hi") == "Bob: Hi\n\nAlice:"
    assert FORMS["g1"].turn("Hi").endswith("Assistant: <think")
    assert FORMS["g1-fast"].turn("Hi").endswith("Assistant: <think>\n</think")
    assert FORMS["g1-no-think"].turn("Hi").endswith("Assistant: <think></think")
    assert FORMS["world"].system(" ") == ""
    with pytest.raises(ArgumentError, match="form must be one of world"):
        Chat(ToyModel(), BYTES, form="poem")


@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5.2", "rwkv6", "rwkv7"])
def test_with_a_real_model_a_batch_has_the_bits_of_single_runs(architecture):
    model = wkvnp.random_model(architecture, n_layer=2, n_embd=64, vocab_size=256, head_size=32, rng=0)
    prompts = ["One", "Two and a half", "Three", "Once upon a time there was a fourth"]
    options = {"max_tokens": 10, "chunk": 8, "stop_tokens": range(16), "presence_penalty": 0.3}
    batch = list(generate(model, BYTES, prompts, rng=3, **options))
    singles = np.random.default_rng(3).spawn(len(prompts))
    for i, prompt in enumerate(prompts):
        alone = list(generate(model, BYTES, prompt, rng=singles[i], **options))
        mine = [p for p in batch if p.prompt_index == i]
        assert [(p.token, p.logprob, p.finish) for p in mine] == [(p.token, p.logprob, p.finish) for p in alone]
        for one, other in zip(mine, alone, strict=True):
            for layer, twin in zip(one.state.layers, other.state.layers, strict=True):
                assert np.array_equal(layer.time_shift, twin.time_shift)
                assert np.array_equal(layer.channel_shift, twin.channel_shift)


def test_with_a_real_model_any_piece_can_be_continued_from():
    model = wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0)
    whole = list(generate(model, BYTES, "Once", max_tokens=20, temperature=0))
    piece = whole[9]
    rest = list(generate(model, BYTES, [piece.token], state=piece.state, max_tokens=10, temperature=0))
    assert [(p.token, p.logprob) for p in rest] == [(p.token, p.logprob) for p in whole[10:]]


def test_memory_is_flat_while_decoding():
    model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    pieces = generate(
        model, BYTES, "Once", max_tokens=4000, rng=0, stop=["never to be seen"], frequency_penalty=0.1, top_p=1
    )
    for _ in range(500):
        next(pieces)
    gc.collect()
    tracemalloc.start()
    for _ in range(
        1800
    ):  # Python keeps a thousand discarded tuples of each length, and has just been made to drop them
        next(pieces)
    early = tracemalloc.get_traced_memory()[0]
    for _ in range(1500):
        next(pieces)
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late - early < 20_000
