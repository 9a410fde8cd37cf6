"""The steps between mechanisms, against NumPy in float64."""

import numpy as np
import pytest
from numba import prange

from wkvnp import _matrix_unit
from wkvnp import _scalar as scalar
from wkvnp._decay import faded, signed_decay, split_decay
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp._jit import kernel
from wkvnp._quantised import Quantised
from wkvnp._threads import most_threads, set_num_threads
from wkvnp._tile import exponentiate
from wkvnp.primitives import linear_map as linear_map_module
from wkvnp.primitives.elementwise import elementwise, relu_squared, sigmoid, silu
from wkvnp.primitives.linear_map import (
    FEW_ROWS,
    Product,
    embedding,
    linear_map,
    low_rank,
    low_rank_groups,
    many_rows,
    multiply,
)
from wkvnp.primitives.norm import group_norm, l2_normalize, layer_norm
from wkvnp.primitives.quantise import quantise
from wkvnp.primitives.shift import Mixture, mix, shift

RNG = np.random.default_rng(0)


def draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max(initial=0) <= tolerance * max(1, np.abs(expected).max(initial=0))


@elementwise
def tanh(x: float) -> float:
    return scalar.tanh(x)


@pytest.mark.parametrize("stored", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rows", [0, 1, 5, FEW_ROWS, FEW_ROWS + 1, 70])
def test_linear_map(stored: str, rows: int) -> None:
    dtype = "float64" if stored == "float64" else "float32"
    weight, x = narrow(draw(37, 29), stored), draw(rows, 29, dtype=dtype)
    y = linear_map(x, weight)
    assert y.dtype == dtype
    close(y, x.astype(np.float64) @ widen(weight).astype(np.float64).T)


@pytest.mark.parametrize("stored", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("platform", ["linux", "darwin"])  # darwin: by BLAS
def test_linear_map_in_blocks(platform: str, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = narrow(draw(37, 29), stored), draw(70, 29, dtype="float64" if stored == "float64" else "float32")
    expected = x.astype(np.float64) @ widen(weight).T
    monkeypatch.setattr("sys.platform", platform)
    for function in ("linear", "relu_squared"):
        monkeypatch.setattr(linear_map_module, "_BLOCK_ELEMENTS", 100)
        monkeypatch.setattr(many_rows, "LONGEST", 5000)
        close(
            linear_map(x, weight, function, added=np.repeat(x[:, :1], 37, 1)),
            FUNCTIONS[function](expected) + x[:, :1],
            1e-5,
        )
        close(linear_map(x, weight[:1], gate=x[:, :1]), expected[:, :1] * x[:, :1])


def test_rows_do_not_feel_each_other() -> None:
    weight, x = draw(2000, 300), draw(FEW_ROWS, 300)  # large enough for several threads
    together = linear_map(x, weight)
    for m in (0, 7, FEW_ROWS - 1):
        np.testing.assert_array_equal(linear_map(x[m : m + 1], weight)[0], together[m])


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_low_rank(rows: int, stored: str) -> None:
    x, down, up = draw(rows, 27), narrow(draw(27, 5), stored), narrow(draw(5, 301), stored)
    close(low_rank(x, down, up, "tanh"), np.tanh(x @ widen(down)) @ widen(up), 5e-6)
    groups = narrow(draw(3, 5, 21), stored)
    wide = narrow(draw(27, 15), stored)
    hidden = np.tanh(x @ widen(wide)).reshape(rows, 3, 5)
    close(low_rank_groups(x, wide, groups, "tanh"), np.einsum("mgr,gro->gmo", hidden, widen(groups)), 5e-6)


FUNCTIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


def expected_of(product: Product) -> np.ndarray:
    """Return a product in float64."""
    weight = product.weight.widened() if isinstance(product.weight, Quantised) else widen(product.weight)
    x, wide = product.x, weight.astype(np.float64)
    if isinstance(x, Product):
        x = expected_of(x)
    if isinstance(x, Mixture):
        x = x.x.astype(np.float64) + (x.previous - x.x.astype(np.float64)) * x.share
    y = FUNCTIONS[product.activation](x @ (wide if product.by_inputs else wide.T))
    y = y * (1 if product.gate is None else product.gate)
    return y + (0 if product.added is None else product.added)


@pytest.fixture(params=["vector registers", "matrix unit"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Multiply many rows in one way and in the other."""
    if request.param == "vector registers":
        monkeypatch.setattr(_matrix_unit, "available", lambda: False)
    elif not _matrix_unit.available():
        pytest.skip("this processor has no matrix unit")
    return str(request.param)


@pytest.mark.parametrize("rows", [1, 3, 40, 1100])
@pytest.mark.usefixtures("way")
def test_products_of_every_kind_at_once(rows: int) -> None:
    x, other, wide = draw(rows, 96), draw(rows, 96), draw(rows, 400)[:, 7:103]
    down, up = narrow(draw(96, 70) / 10, "bfloat16"), draw(96, 301) / 10
    gate, added = draw(rows, 301), draw(rows, 500)[:, 5:306]
    products = [
        Product(x, draw(50, 96) / 10),
        Product(x, narrow(draw(37, 96) / 10, "float16"), "tanh"),
        Product(Mixture(x, other, draw(1, 96)), down, "sigmoid", by_inputs=True),
        Product(Mixture(x, other, draw(rows, 96)), up, gate=gate, added=added, by_inputs=True),
        Product(wide, draw(301, 96) / 10, "silu", added=draw(1, 301)),
        Product(wide, quantise(draw(301, 96) / 10, "int8"), "relu_squared", gate=gate),
        Product(Mixture(wide, other, draw(1, 96)), quantise(draw(64, 96) / 10, "int4")),
        Product(Product(x, draw(70, 96) / 10, "relu_squared"), draw(33, 70) / 10, gate=draw(rows, 33)),
        Product(Product(Mixture(x, other, draw(1, 96)), down, "tanh", by_inputs=True), draw(70, 99), by_inputs=True),
    ]
    for product, y in zip(products, multiply(products), strict=True):
        close(y, expected_of(product), 5e-6)


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.usefixtures("way")
def test_many_rows_lose_no_digits(stored: str) -> None:
    # Small numbers among large ones: with one part of a number less, or without a pair of parts, this fails.
    x, weight = draw(70, 320) * 10 ** draw(70, 320), draw(75, 320) * 10 ** draw(75, 320)
    matrix = quantise(weight, stored) if stored.startswith("int") else narrow(weight, stored)
    wide = (matrix.widened() if isinstance(matrix, Quantised) else widen(matrix)).astype(np.float64)
    magnitude = np.abs(x).astype(np.float64) @ np.abs(wide).T
    for product in (Product(x, matrix), Product(Product(x, np.eye(320, dtype=np.float32)), matrix)):
        error = np.abs(multiply([product])[0] - x.astype(np.float64) @ wide.T)
        assert (error / magnitude).max() <= 2e-6
        assert np.median(error / magnitude) <= 1.2e-7


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
@pytest.mark.usefixtures("way")
def test_what_is_not_finite_stays_visible(special: float) -> None:
    x, weight = draw(40, 64), draw(33, 64)
    x[7, 60] = special
    y = linear_map(x, weight)
    assert not np.isfinite(y[7]).any()
    assert np.isfinite(np.delete(y, 7, 0)).all()


@pytest.mark.usefixtures("way")
def test_many_rows_have_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [draw(700, 300), narrow(draw(300, 130), "bfloat16"), narrow(draw(64, 300), "float16")]
    x, other, share, added = draw(1000, 300), draw(1000, 300), draw(1, 300), draw(1000, 700)

    def compute(rows: slice) -> list[np.ndarray]:
        mixed = Mixture(x[rows], other[rows], share)
        inner = Product(mixed, weights[1], "tanh", by_inputs=True)
        products = [Product(x[rows], weights[0], added=added[rows]), inner, Product(mixed, weights[2])]
        return multiply([*products, Product(inner, weights[1])])

    whole = compute(slice(None))
    for n in (1, 2, 3):
        set_num_threads(min(n, most_threads()))
        for y, z in zip(compute(slice(None)), whole, strict=True):
            np.testing.assert_array_equal(y, z)
    set_num_threads(None)
    monkeypatch.setattr(many_rows, "LONGEST", 500_000)  # many launches
    for rows in (slice(0, 33), slice(481, 999)):
        for y, z in zip(compute(rows), whole, strict=True):
            np.testing.assert_array_equal(y, z[rows])
    np.testing.assert_array_equal(linear_map(x[7:70], weights[2]), linear_map(x, weights[2])[7:70])


def test_low_rank_of_extreme_numbers() -> None:
    x, one = np.full((40, 1), -1e4, np.float32), np.ones((1, 1), np.float32)
    for rows in (1, 40):  # no warning of an overflow
        assert np.abs(low_rank(x[:rows], one, one, "sigmoid")).max() <= 1e-30


def test_embedding() -> None:
    table = narrow(draw(7, 3), BFLOAT16)
    np.testing.assert_array_equal(embedding(table, np.array([6, 0])), widen(table)[[6, 0]])


@pytest.mark.parametrize("rows", [0, 1, 3, 700])
def test_norms(rows: int) -> None:
    x, weight, bias = draw(rows, 60), draw(60), draw(60)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * weight + bias
    close(layer_norm(x, weight, bias), expected)
    parts = wide.reshape(rows, 5, 12)
    expected = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 64e-5)
    close(group_norm(x, weight, bias, 5, 64e-5), expected.reshape(rows, 60) * weight + bias)


def test_norms_of_worked_examples() -> None:
    one, none = np.ones(4), np.zeros(4)
    x = np.array([[1.0, 2, 4, -3], [0.01, 0.02, 0.4, -0.3]])
    assert layer_norm(x[:1], one, none)[0] == pytest.approx([0, 0.392231969, 1.176695906, -1.568927874], abs=1e-8)
    expected = [-0.998722452, 0.998722452, 0.999973879, -0.999973879]
    assert group_norm(x, one, none, 2, 64e-5)[0] == pytest.approx(expected, abs=1e-8)
    expected = [-0.193891684, 0.193891684, 0.997397946, -0.997397946]
    assert group_norm(x, one, none, 2, 64e-5)[1] == pytest.approx(expected, abs=1e-8)
    expected = [-0.845154255, 0.845154255, 0.999959186, -0.999959186]
    assert group_norm(x, one, none, 2, 1e-5)[1] == pytest.approx(expected, abs=1e-8)


def test_a_large_mean_keeps_its_digits() -> None:
    x = draw(3, 64) + np.float32(1000)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    close(layer_norm(x, np.ones(64, np.float32), np.zeros(64, np.float32)), expected, 2e-4)


def test_l2_normalize() -> None:
    x = draw(2, 3, 5)
    close(l2_normalize(x), x / np.linalg.norm(x, axis=-1, keepdims=True))
    assert not l2_normalize(np.zeros((1, 2), np.float32)).any()


def test_shift_of_packed_sequences() -> None:
    x, carried = draw(6, 2), draw(4, 2)
    previous, last = shift(x, carried, np.array([0, 3, 3, 5, 6]))
    np.testing.assert_array_equal(previous, [carried[0], x[0], x[1], carried[2], x[3], carried[3]])
    np.testing.assert_array_equal(last, [x[2], carried[1], x[4], x[5]])


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("per_token", [True, False])
def test_mix(rows: int, per_token: bool) -> None:
    x, previous, share = draw(rows, 50), draw(rows, 50), draw(4, rows if per_token else 1, 50)
    close(mix(x, previous, share), x + (previous - x) * share)


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementwise_functions(rows: int, dtype: str) -> None:
    x = 10 * draw(rows, 150, dtype=dtype)
    tolerance = 5e-7 if dtype == "float32" else 1e-14
    wide = x.astype(np.float64)
    close(sigmoid(x), 1 / (1 + np.exp(-wide)), tolerance)
    close(silu(x), wide / (1 + np.exp(-wide)), tolerance)
    close(tanh(x), np.tanh(wide), tolerance)
    close(relu_squared(x), np.maximum(wide, 0) ** 2, tolerance)
    assert sigmoid(x).dtype == dtype


def test_elementwise_keeps_nan_and_infinity() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1000, -1000], np.float32)
    np.testing.assert_array_equal(relu_squared(x), [np.nan, np.inf, 0, 1e6, 0])
    np.testing.assert_allclose(sigmoid(x), [np.nan, 1, 0, 1, 0], atol=1e-38)
    np.testing.assert_array_equal(tanh(x), [np.nan, 1, -1, 1, -1])


@elementwise
def weighted(a: float, b: float, c: float, d: float) -> float:
    return a * scalar.sigmoid(b) + c * d


def test_elementwise_formula_of_four_with_vectors() -> None:
    a, b, c, d = draw(5, 9), draw(9), draw(5, 9), draw(9)
    close(weighted(a, b, c, d), a / (1 + np.exp(-b)) + c * d)


@kernel
def exponentials(x, e, m):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        e[i] = scalar.exp(x[i])
        m[i] = scalar.expm1(x[i])


@kernel
def decays_in_parts(x, whole, rest, signed, kept):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        whole[i], rest[i] = split_decay(x[i])
        signed[i] = signed_decay(x[i])
        kept[i] = faded(x.dtype.type(3), signed[i])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decays_are_exact_at_both_ends(dtype: str) -> None:
    x = np.concatenate([[0.0, -0.0, -np.inf, -88, -1e30], -np.logspace(-12, np.log10(80), 200_000)]).astype(dtype)
    whole, rest, signed, kept = (np.empty_like(x) for _ in range(4))
    decays_in_parts.serial(x, whole, rest, signed, kept)
    exact, lost, bound = np.exp(np.float64(x)), -np.expm1(np.float64(x)), 2e-7 if dtype == "float32" else 1e-14
    exact[exact < np.finfo(dtype).tiny] = 0
    assert (np.abs(np.float64(whole) + rest - exact) <= bound * exact).all()
    assert (np.abs(np.float64(kept) / 3 - exact) <= bound * exact).all()
    slow = np.signbit(signed)
    assert (slow[:2]).all() and not slow[x < np.log(0.5)].any()
    np.testing.assert_array_equal(whole[slow], 1)
    assert (np.abs(signed[slow] + lost[slow]) <= bound * lost[slow]).all()
    assert (np.abs(rest[slow] + lost[slow]) <= bound * lost[slow]).all()
    if dtype == "float32":
        np.testing.assert_array_equal(np.float64([whole, rest, signed, kept])[:, 2:5], 0)
    for i in (0, 2, 9, 150_000, 200_000):  # outside compiled code
        assert split_decay(x[i])[0] + split_decay(x[i])[1] == pytest.approx(exact[i], rel=bound)
        assert faded(x.dtype.type(3), signed_decay(x[i])) == pytest.approx(3 * exact[i], rel=bound)
        assert np.signbit(signed_decay(x[i])) == slow[i] or -0.7 < x[i] < -0.3


@kernel
def widened(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = scalar.widen(x[i])


def test_exponentials_in_float32() -> None:
    x = np.concatenate([np.linspace(-87, 88, 1_000_001), -np.logspace(-30, 1.9, 100_001)]).astype(np.float32)
    e, m = np.empty_like(x), np.empty_like(x)
    exponentials.serial(x, e, m)
    wide = x.astype(np.float64)
    assert np.abs(e / np.exp(wide) - 1).max() <= 3.5e-7
    assert np.abs(m / np.expm1(wide) - 1).max() <= 5e-7
    limits = np.array([-1000, -np.inf, np.nan, 0], np.float32)
    exponentials.serial(limits, e[:4], m[:4])
    np.testing.assert_array_equal(e[:4], [0, 0, np.nan, 1])
    np.testing.assert_array_equal(m[:4], [-1, -1, np.nan, 0])


@kernel
def exponentials_of_vectors(x, reference):  # type: ignore[no-untyped-def]
    for r in prange(x.shape[0]):
        exponentiate(x[r], reference)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3.5e-7), ("float64", 1e-15)])
def test_exponentials_of_vectors(dtype: str, tolerance: float) -> None:
    x = np.concatenate([np.linspace(-87, 88, 1 << 18), -np.logspace(-30, 1.9, 1 << 15)]).astype(dtype).reshape(-1, 64)
    y = x.copy()
    exponentials_of_vectors.serial(y, x.dtype.type(0))
    assert np.abs(y / np.exp(x.astype(np.float64)) - 1).max() <= tolerance
    limits = np.zeros((1, 64), dtype)
    limits[0, :4] = -1000, -np.inf, np.nan, 2
    exponentials_of_vectors.serial(limits, x.dtype.type(2))
    np.testing.assert_array_equal(limits[0, :4], [0, 0, np.nan, 1])
    np.testing.assert_allclose(limits[0, 4:], np.exp(-2), rtol=1e-6)
    exponentiate(x, x.dtype.type(0))  # outside compiled code
    np.testing.assert_allclose(x, y, rtol=1e-6)


@elementwise
def softplus(x: float) -> float:
    return scalar.softplus(x)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-7), ("float64", 1e-15)])
def test_softplus(dtype: str, tolerance: float) -> None:
    x = np.concatenate([np.linspace(-87, 100, 1_000_001), np.logspace(-30, 30, 1001)]).astype(dtype)
    y = softplus(x)
    assert y.dtype == dtype
    assert np.abs(y / np.logaddexp(0, x.astype(np.float64)) - 1).max() <= tolerance
    limits = np.array([-1000, -np.inf, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(softplus(limits), [0, 0, np.inf, np.nan])
    assert scalar.softplus(np.float32(-1)) == pytest.approx(np.log1p(np.exp(-1)))  # outside compiled code


def test_every_16_bit_number_is_widened_exactly() -> None:
    bits = np.arange(65536).astype(np.uint16)
    y = np.empty(65536, np.float32)
    widened.serial(bits, y)
    np.testing.assert_array_equal(y.view(np.uint32), bits.astype(np.uint32) << 16)
    widened.serial(bits.view(np.int16), y)
    np.testing.assert_array_equal(y, bits.view(np.float16).astype(np.float32))


def test_bfloat16_agrees_with_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the other implementation of bfloat16")
    bits = RNG.integers(0, 2**32, 100_000, dtype=np.uint32)
    x = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    ours, theirs = narrow(x, BFLOAT16).view(np.uint16), expected.view(np.uint16)
    nan = np.isnan(x)
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    assert np.isnan(widen(narrow(x, BFLOAT16))[nan]).all()
    np.testing.assert_array_equal(widen(expected[~nan]), widen(narrow(x, BFLOAT16))[~nan])
