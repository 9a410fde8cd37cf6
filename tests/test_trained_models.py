"""Small models that were really trained: what they write and how they score, as the training framework has it.

docs/bundled-models says how models and expectations were made. Random weights would hide a wrong decay, gate or norm.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import wkvnp
from wkvnp.models import BUNDLED

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
MODELS = {path.name: path for path in (BUNDLED, *sorted(DATA.glob("*.safetensors")))}
by_model = pytest.mark.parametrize("name", MODELS)


def test_every_model_has_expectations_and_its_place() -> None:
    assert set(MODELS) == set(EXPECTED) - {"prompt", "passage"}
    assert BUNDLED.stat().st_size <= 6_000_000
    assert all(path.stat().st_size <= 3_000_000 for path in MODELS.values() if path != BUNDLED)
    assert {"rwkv4", "rwkv5.2", "rwkv6", "rwkv7"} <= {wkvnp.load(path).config.architecture for path in MODELS.values()}


@by_model
def test_greedy_text(name: str) -> None:
    model, tokenizer = wkvnp.load(MODELS[name], dtype="float32"), wkvnp.load_tokenizer("bytes")
    pieces = wkvnp.generate(model, tokenizer, EXPECTED["prompt"], max_tokens=200, temperature=0)
    assert "".join(piece.text for piece in pieces) == EXPECTED[name]["greedy"]


@by_model
def test_score_of_a_passage(name: str) -> None:
    model, tokenizer = wkvnp.load(MODELS[name], dtype="float32"), wkvnp.load_tokenizer("bytes")
    score = wkvnp.score(model, tokenizer, EXPECTED["passage"])
    assert score.nats == pytest.approx(EXPECTED[name]["nats"], rel=1e-6)


@by_model
def test_sixteen_bits_score_alike(name: str) -> None:
    tokenizer = wkvnp.load_tokenizer("bytes")
    nats = [
        wkvnp.score(wkvnp.load(MODELS[name], dtype=d), tokenizer, EXPECTED["passage"]).nats for d in (None, "float16")
    ]
    np.testing.assert_allclose(nats, EXPECTED[name]["nats"], rtol=1e-3)


def test_the_default_is_the_bundled_one() -> None:
    assert wkvnp.load().fingerprint == wkvnp.load(BUNDLED).fingerprint
