"""The sampler against a slow and plain statement of the same rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from wkvnp.errors import ArgumentError
from wkvnp.generation.sampling import (
    Repetition,
    distribution,
    draw,
    keep_top_k,
    keep_top_p,
    log_probability,
    sample,
    sharpen,
    softmax,
)
from wkvnp.generation.stops import StopWatch


def plain_distribution(logits, temperature, top_p, top_k):
    """Say rule by rule, in plain Python, which probabilities a token is drawn with."""
    peak = max(logits)
    weights = [math.exp(value - peak) for value in logits]
    probabilities = [weight / math.fsum(weights) for weight in weights]
    ranking = sorted(range(len(logits)), key=lambda i: (-probabilities[i], i))
    if temperature == 0:
        return [float(i == ranking[0]) for i in range(len(logits))]
    cutoff = 0.0
    if top_p < 1:
        total = 0.0
        for i in ranking:
            total += probabilities[i]
            cutoff = probabilities[i]
            if total >= top_p:
                break
    kept = [p if p >= cutoff else 0.0 for p in probabilities]
    if top_k:
        for i in ranking[top_k:]:
            kept[i] = 0.0
    powers = [(p / max(kept)) ** (1 / temperature) if p else 0.0 for p in kept]
    return [power / math.fsum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0, 0.1, 0.7, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.85, 0.999, 1.0, 7.0])
def test_distribution_equals_the_plain_rules(temperature, top_p):
    rng = np.random.default_rng([int(temperature * 10), int(top_p * 1000)])
    for size in (1, 2, 7, 100, 1000):
        for top_k in (0, 1, 5, 999, 5000):
            logits = rng.standard_normal(size).astype(np.float32) * rng.choice([0.01, 1, 6])
            if size > 2:
                logits[rng.integers(size)] = -np.inf
            expected = plain_distribution(logits.astype(float).tolist(), temperature, top_p, top_k)
            actual = distribution(logits, temperature=temperature, top_p=top_p, top_k=top_k)
            assert np.array_equal(actual > 0, np.array(expected) > 0)
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=0)


def test_large_vocabularies_take_every_path_of_the_cutoff():
    rng = np.random.default_rng(3)
    for scale in (0.0, 0.1, 3.0, 20.0):
        for top_p in (0.01, 0.5, 0.85, 0.9999):
            probabilities = softmax(rng.standard_normal(65536) * scale)
            ranked = np.sort(probabilities)[::-1]
            cutoff = ranked[np.searchsorted(np.cumsum(ranked), top_p)]
            expected = np.where(probabilities >= cutoff, probabilities, 0)
            assert np.array_equal(keep_top_p(probabilities, top_p), expected)


def test_top_p_of_one_keeps_everything():
    probabilities = softmax(np.random.default_rng(0).standard_normal(65536))
    assert np.array_equal(keep_top_p(probabilities, 1.0), probabilities)
    assert len({sample(np.zeros(64), np.random.default_rng(seed), top_p=1.0) for seed in range(50)}) > 20


def test_ties_with_the_cutoff_survive_top_p_and_lower_ids_win_in_top_k():
    probabilities = np.array([0.2, 0.4, 0.2, 0.2])
    assert np.array_equal(keep_top_p(probabilities, 0.5), probabilities)
    assert np.array_equal(keep_top_k(probabilities, 2), [0.2, 0.4, 0, 0])


def test_rounding_that_never_reaches_top_p_keeps_everything():
    probabilities = np.full(10, 0.1) * (1 - 1e-12)
    assert np.array_equal(keep_top_p(probabilities, 1 - 1e-13), probabilities)


def test_temperature_does_not_change_which_tokens_survive():
    logits = np.random.default_rng(1).standard_normal(500) * 3
    survivors = distribution(logits, top_p=0.7) > 0
    for temperature in (0.5, 1.7, 30.0):
        assert np.array_equal(distribution(logits, top_p=0.7, temperature=temperature) > 0, survivors)


def test_a_tiny_temperature_neither_underflows_nor_divides_by_zero():
    result = sharpen(softmax([1.0, 1.0 + 1e-9, -500.0]), 1e-6)
    assert np.isfinite(result).all()
    assert result[1] > result[0] > result[2]


def test_greedy_takes_the_lowest_of_equal_ids_and_no_randomness():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert sample([1.0, 5.0, 5.0], rng, temperature=0) == 1
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    "options", [{}, {"top_p": 0.6}, {"top_k": 4, "top_p": 1}, {"temperature": 2.0, "top_p": 1}, {"temperature": 0.4}]
)
def test_draws_follow_the_distribution(options):
    logits = np.random.default_rng(5).standard_normal(12) * 2
    expected = distribution(logits, **options)
    rng = np.random.default_rng(11)
    counts = np.bincount([sample(logits, rng, **options) for _ in range(4000)], minlength=12)
    assert not counts[expected == 0].any()
    alive = expected > 0
    if alive.sum() > 1:
        assert scipy.stats.chisquare(counts[alive], expected[alive] * 4000).pvalue > 1e-3


def test_draw_never_returns_a_token_of_probability_zero():
    class Edge:
        def __init__(self, value):
            self.value = value

        def random(self):
            return self.value

    probabilities = np.array([0.0, 0.3, 0.0, 0.7, 0.0])
    for value in (0.0, 0.3, np.nextafter(0.3, 0), np.nextafter(1, 0), 1.0):
        assert draw(probabilities, Edge(value)) in (1, 3)


def test_one_uniform_number_per_draw():
    rng, twin = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(10):
        sample(np.zeros(5), rng)
        twin.random()
    assert rng.bit_generator.state == twin.bit_generator.state


def test_log_probability_is_the_log_softmax():
    logits = np.random.default_rng(0).standard_normal(300).astype(np.float32) * 20
    probabilities = softmax(logits)
    for token in (0, 17, 299):
        assert math.isclose(log_probability(logits, token), math.log(probabilities[token]), rel_tol=1e-12)
    assert log_probability([0.0, -2000.0], 1) == -2000.0


def test_repetition_follows_the_reference_table():
    texts = {0: "a", 1: " ", 2: "12", 3: "21", 4: "", 5: "b", 6: "\n"}
    presence, frequency, decay = 0.3, 0.2, 0.9
    repetition = Repetition(7, presence, frequency, decay)
    table: dict[int, float] = {}
    rng = np.random.default_rng(4)
    for _ in range(60):
        logits = rng.standard_normal(7)
        expected = logits.copy()
        for n in table:
            expected[n] -= presence + table[n] * frequency
        assert np.array_equal(repetition.penalise(logits), expected)
        token = int(rng.integers(7))
        for n in table:
            table[n] *= decay
        weight = 0 if texts[token] in " \t0123456789" else 1
        table[token] = table.get(token, 0) + weight
        repetition.note(token, texts[token])
    assert table[1] == table[2] == table[4] == 0
    assert table[3] > 0 and table[6] > 0


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        ([0.0, np.nan], "nan"),
        ([0.0, np.inf], "inf"),
        ([-np.inf, -np.inf], "every token is forbidden"),
        (np.zeros((2, 3)), r"\(V,\).*\(2, 3\)"),
        ([], "at least 1"),
    ],
)
def test_unusable_logits_are_refused(logits, words):
    for temperature in (0, 1):
        with pytest.raises(ArgumentError, match=words):
            sample(logits, np.random.default_rng(0), temperature=temperature)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": -0.1}, {"top_p": math.nan},
     {"top_k": -1}, {"top_k": 1.5}, {"temperature": "hot"}],
)  # fmt: skip
def test_sampling_arguments_are_refused_by_name(options):
    ((name, value),) = options.items()
    with pytest.raises(ArgumentError, match=f"{name} must be .*; got {value!r}"):
        distribution(np.zeros(3), **options)


STOPS = [["\n\n"], ["abcd", "c"], ["abc", "b"], ["aab", "ab"], ["aaa"], ["é!", "xyxz"], ["User:", "\n\nUser:"]]


@pytest.mark.parametrize("stops", STOPS)
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(stops):
    rng = np.random.default_rng(len(stops[0]))
    alphabet = sorted(set("".join(stops)) | {"z"})
    for _ in range(300):
        text = "".join(rng.choice(alphabet, rng.integers(1, 14)))
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        expected = text[: min(ends)[1]] if ends else text
        watch, shown, place = StopWatch(stops), "", 0
        while place < len(text) and not watch.stopped:
            size = int(rng.integers(1, 5))
            shown += watch.feed(text[place : place + size])
            assert expected.startswith(shown)
            place += size
        assert watch.stopped == bool(ends)
        assert shown + watch.flush() == expected
