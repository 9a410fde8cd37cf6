"""Every architecture answers to numbers of the original implementations."""

from pathlib import Path

import numpy as np
import pytest
from contracts.tolerance import LOGITS
from golden import tiny_models as golden

import wkvnp

ARCHITECTURES = tuple(golden.LAST)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> wkvnp.Model:
    path = tmp_path_factory.mktemp("golden") / "tiny.safetensors"
    golden.write(request.param, path)
    return wkvnp.load(path)


def test_the_formula_is_the_published_one() -> None:
    emb = golden.fill("emb.weight", (11, 8))
    assert emb.ravel()[:3] == pytest.approx([0.79583734, -0.34781256, -0.2547455], abs=1e-8)
    assert emb.astype(np.float64).sum() == pytest.approx(0.4911688, abs=1e-6)
    for architecture, count in golden.COUNTS.items():
        assert len(golden.tensors(architecture)) == count


def slots(tiny: wkvnp.Model, state: wkvnp.State) -> list[list[float]]:
    rows = []
    for layer in state.layers:
        if tiny.config.architecture == "rwkv4":
            aa, bb, pp = layer.wkv
            middle = [np.abs(aa).sum(), np.abs(bb).sum(), pp.sum()]
        else:
            middle = [np.abs(layer.wkv).sum()]
        rows.append([np.abs(layer.time_shift).sum(), *middle, np.abs(layer.channel_shift).sum()])
    return rows


@pytest.mark.parametrize("how", ["sequence", "tokens", "pieces"])
def test_logits_and_states(tiny: wkvnp.Model, how: str) -> None:
    architecture = tiny.config.architecture
    if how == "sequence":
        logits, state = tiny(golden.TOKENS, logits="all")
    else:
        rows, state = [], None
        for piece in ([t] for t in golden.TOKENS) if how == "tokens" else (golden.TOKENS[:3], golden.TOKENS[3:]):
            answer, state = tiny(piece, state=state, logits="all")
            rows.append(answer)
        logits = np.concatenate(rows)
    assert np.abs(logits[-1] - golden.numbers(golden.LAST[architecture])).max() <= LOGITS
    assert np.abs(logits[0, :4] - golden.numbers(golden.FIRST[architecture])).max() <= LOGITS
    expected = [golden.numbers(part) for part in golden.STATE_SUMS[architecture].split("|")]
    for found, sums in zip(slots(tiny, state), expected, strict=True):
        # A sum of n numbers, each held to the tolerance; printed to seven digits.
        assert np.allclose(found, sums, rtol=0, atol=32 * LOGITS)
    if architecture in golden.HEAD:
        head = state.layers[0].wkv[0, 0]
        head = head.T if architecture == "rwkv7" else head
        assert np.abs(head.ravel() - golden.numbers(golden.HEAD[architecture])).max() <= LOGITS


def test_float64_agrees_to_the_printed_digits(tiny: wkvnp.Model, tmp_path: Path) -> None:
    tiny.save(tmp_path / "again.safetensors")
    logits, _ = wkvnp.load(tmp_path / "again.safetensors", dtype="float64")(golden.TOKENS)
    assert logits.dtype == np.float64
    assert np.abs(logits - golden.numbers(golden.LAST[tiny.config.architecture])).max() <= 6e-8


@pytest.mark.parametrize(
    ("name", "eps"), [("tiny-rwkv4-660k", None), ("tiny-rwkv5.0-730k", 1e-5), ("tiny-rwkv7-834k", None)]
)
def test_trained_models_give_their_published_logits(shared_data: Path, name: str, eps: float | None) -> None:
    model = wkvnp.load(shared_data / "tiny-rwkv" / f"{name}.pth", group_norm_eps=eps)
    expected = np.fromfile(shared_data / "tiny-rwkv" / f"{name}.expected-logits.f32", "<f4")
    logits, _ = model(list(b'"in'))
    assert np.abs(logits - expected).max() <= 5e-5
    state = None
    for token in b'"in':
        logits, state = model([token], state=state)
    assert np.abs(logits - expected).max() <= 5e-5
