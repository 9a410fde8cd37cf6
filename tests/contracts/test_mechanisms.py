"""What every front door promises: being listed in `wkvnp.mechanisms` means being tested here."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import wkvnp
from contracts.tolerance import SCAN, assert_close
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp.errors import DeviceError, ShapeError
from wkvnp.kernels.delta import oracle as delta_oracle
from wkvnp.kernels.linear import oracle as linear_oracle
from wkvnp.kernels.wkv import oracle as wkv_oracle
from wkvnp.mechanisms import NAMES

SIZES = {"B": 2, "T": 11, "H": 3, "K": 5, "V": 7, "C": 13}
by_name = pytest.mark.parametrize("name", NAMES)


def oracle_rwkv5(x: dict[str, np.ndarray], state: Any) -> tuple[np.ndarray, Any]:
    decay = np.broadcast_to(x["log_decay"].reshape(len(x["u"]), -1), x["k"].shape)
    bonus = np.broadcast_to(x["u"].reshape(len(x["u"]), -1), x["k"].shape[1:])
    return linear_oracle.linear(x["r"], decay, x["k"], x["v"], bonus, state)


def oracle_token_shift(x: dict[str, np.ndarray], state: Any) -> tuple[np.ndarray, Any]:
    tokens = [np.zeros(x["x"].shape[1]) if state is None else state, *x["x"]]
    return np.array(tokens[:-1]).reshape(x["x"].shape), np.array(tokens[-1])


ORACLES: dict[str, Callable[[dict[str, np.ndarray], Any], tuple[np.ndarray, Any]]] = {
    "rwkv4": lambda x, s: wkv_oracle.wkv(x["log_decay"], x["u"], x["k"], x["v"], *(s or ())),
    "rwkv5": oracle_rwkv5,
    "rwkv6": lambda x, s: linear_oracle.linear(x["r"], x["log_decay"], x["k"], x["v"], x["u"], s),
    "rwkv7": lambda x, s: delta_oracle.dplr(x["r"], x["log_decay"], x["k"], x["v"], x["a"], x["b"], s),
    "token_shift": oracle_token_shift,
}


class Door:
    """A front door with inputs drawn for it."""

    def __init__(self, name: str, dtype: str = "float32", seed: int = 0, **sizes: int) -> None:
        self.function, self.spec = getattr(wkvnp, name), import_module(f"wkvnp.mechanisms.{name}").SPEC
        self.sizes = SIZES | sizes
        rng = np.random.default_rng(seed)
        self.inputs = self.spec.draw(rng, self.sizes, dtype)
        self.state = self.spec.draw_state(rng, self.sizes, dtype)

    def sequential(self) -> list[str]:
        return [i.name for i in self.spec.inputs if "T" in i.axes[0].split()]

    def cut(self, rows: Any, times: Any) -> dict[str, np.ndarray]:
        return {n: a[rows, times] if n in self.sequential() else a for n, a in self.inputs.items()}


def parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def pick(state: Any, index: Any) -> Any:
    return type(state)(*(p[index] for p in state)) if isinstance(state, tuple) else state[index]


def assert_same(a: tuple[np.ndarray, Any], b: tuple[np.ndarray, Any]) -> None:
    np.testing.assert_array_equal(a[0], b[0])
    for p, q in zip(parts(a[1]), parts(b[1]), strict=True):
        np.testing.assert_array_equal(p, q)


def test_every_mechanism_has_an_oracle_and_is_public() -> None:
    assert set(ORACLES) == set(NAMES) <= set(wkvnp.__all__)


@by_name
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [0, 1, 11])
def test_agrees_with_oracle(name: str, dtype: str, T: int) -> None:
    door = Door(name, dtype, T=T)
    y, final = door.function(**door.inputs, state=door.state)
    assert y.dtype == dtype
    for b in range(door.sizes["B"]):
        inputs = {n: a[b] if n in door.sequential() else a for n, a in door.inputs.items()}
        oracle_y, oracle_state = ORACLES[name](inputs, pick(door.state, b))
        assert_close(y[b], oracle_y, SCAN[dtype])
        if name != "rwkv4":  # compared up to its exponent in the kernel's contract
            assert_close(pick(final, b)[None], oracle_state[None], SCAN[dtype], "state")


@by_name
def test_no_state_is_the_start_of_a_text(name: str) -> None:
    door = Door(name, "float64")
    y, _ = door.function(**door.inputs)
    inputs = {n: a[0] if n in door.sequential() else a for n, a in door.inputs.items()}
    assert_close(y[0], ORACLES[name](inputs, None)[0], SCAN["float64"])


@by_name
def test_split_anywhere(name: str) -> None:
    door = Door(name)
    whole = door.function(**door.inputs, state=door.state)
    for t in (0, 1, 5, 11):
        y1, carried = door.function(**door.cut(slice(None), slice(0, t)), state=door.state)
        y2, final = door.function(**door.cut(slice(None), slice(t, None)), state=carried)
        assert_same((np.concatenate([y1, y2], axis=1), final), whole)


@by_name
def test_batch_equals_loop_and_needs_no_batch_axis(name: str) -> None:
    door = Door(name)
    y, final = door.function(**door.inputs, state=door.state)
    for b in range(2):
        alone = door.function(**door.cut(b, slice(None)), state=pick(door.state, b))
        assert_same(alone, (y[b], pick(final, b)))


@by_name
def test_ragged_equals_single(name: str) -> None:
    door = Door(name, B=1)
    offsets = [0, 4, 4, 11]
    states = Door(name, seed=1, B=3).state
    y, final = door.function(**door.inputs, cu_seqlens=offsets, state=states)
    for n in range(3):
        inputs = door.cut(slice(None), slice(offsets[n], offsets[n + 1]))
        alone = door.function(**inputs, state=pick(states, slice(n, n + 1)))
        assert_same(alone, (y[:, offsets[n] : offsets[n + 1]], pick(final, slice(n, n + 1))))


@by_name
def test_inputs_and_state_untouched(name: str) -> None:
    door = Door(name)
    before = {n: a.copy() for n, a in door.inputs.items()}
    state = [p.copy() for p in parts(door.state)]
    for array in (*door.inputs.values(), *parts(door.state)):
        array.flags.writeable = False
    door.function(**door.inputs, state=door.state)
    for n, a in door.inputs.items():
        np.testing.assert_array_equal(a, before[n])
    for a, b in zip(parts(door.state), state, strict=True):
        np.testing.assert_array_equal(a, b)


@by_name
def test_strides_and_byte_order_do_not_matter(name: str) -> None:
    door = Door(name)
    expected = door.function(**door.inputs, state=door.state)
    odd = {n: np.asfortranarray(a).astype(a.dtype.newbyteorder(">")) for n, a in door.inputs.items()}
    assert_same(door.function(**odd, state=door.state), expected)


@by_name
def test_half_precision_in_and_out_with_a_float32_state(name: str) -> None:
    door = Door(name, "float16")
    y, final = door.function(**door.inputs)
    wide = {n: a.astype(np.float32) for n, a in door.inputs.items()}
    y32, final32 = door.function(**wide)
    assert y.dtype == np.float16 and parts(final)[0].dtype == np.float32
    assert_same((y, final), (y32.astype(np.float16), final32))


@by_name
def test_bfloat16_in_and_out(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the other implementation of bfloat16")
    inputs = {n: narrow(a, BFLOAT16) for n, a in Door(name).inputs.items()}
    y, final = getattr(wkvnp, name)(**inputs)
    wide = getattr(wkvnp, name)(**{n: widen(a) for n, a in inputs.items()})
    assert y.dtype == BFLOAT16
    assert_same((y, final), (narrow(wide[0], BFLOAT16), wide[1]))
    theirs, _ = getattr(wkvnp, name)(**{n: a.view(ml_dtypes.bfloat16) for n, a in inputs.items()})
    assert theirs.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(theirs.view(np.uint16), y.view(np.uint16))


@by_name
def test_each_wrong_shape_is_refused_by_name(name: str) -> None:
    door = Door(name)
    for argument, array in door.inputs.items():
        with pytest.raises(ShapeError, match=rf"{name}: {argument} must have shape \("):
            door.function(**{**door.inputs, argument: array[..., None]})
        longer = np.concatenate([array, array[..., :1]], axis=-1)  # no longer fits the other arguments, or the state
        with pytest.raises(ShapeError, match=rf"{name}: [\w.]+ must have shape \(.*\) with \w=\d+ as in \w+; got"):
            door.function(**{**door.inputs, argument: longer}, state=door.state)
    with pytest.raises(ShapeError, match=rf"{name}: state"):
        door.function(**door.inputs, state=np.zeros((2, 2)) if name != "token_shift" else np.zeros((2, 2, 2)))


@by_name
def test_other_bad_input_is_refused(name: str) -> None:
    door = Door(name)
    first = door.sequential()[0]
    with pytest.raises(ShapeError, match=rf"{name}: {first} must not be a masked array"):
        door.function(**{**door.inputs, first: np.ma.masked_array(door.inputs[first])})
    with pytest.raises(ShapeError, match=rf"{name}: {first} must be real floating point .* got complex"):
        door.function(**{**door.inputs, first: door.inputs[first] + 1j})
    with pytest.raises(ShapeError, match=rf"{name}: with cu_seqlens the batch axis must be 1; got B=2"):
        door.function(**door.inputs, cu_seqlens=[0, 11])
    for offsets in ([0, 5], [1, 11], [0, 7, 3, 11]):
        with pytest.raises(ShapeError, match=rf"{name}: cu_seqlens must rise from 0 to T=11"):
            door.function(**Door(name, B=1).inputs, cu_seqlens=offsets)
    if "log_decay" in door.inputs:
        with pytest.raises(ShapeError, match=rf"{name}: log_decay must be at most 0"):
            door.function(**{**door.inputs, "log_decay": -door.inputs["log_decay"]})
    if len(door.inputs) > 1:
        with pytest.raises(ShapeError, match=rf"{name}: {first} is float64 but .* is float32"):
            door.function(**{**door.inputs, first: door.inputs[first].astype(np.float64)})


@by_name
def test_arrays_on_a_gpu_are_not_moved_silently(name: str) -> None:
    class OnGPU:
        __cuda_array_interface__ = None

    door = Door(name)
    mixed = {**door.inputs, door.sequential()[0]: OnGPU()}
    with pytest.raises(DeviceError, match=f"{name}: "):
        door.function(**mixed)


def test_rwkv5_takes_one_number_a_head() -> None:
    door = Door("rwkv5", "float64")
    one = {**door.inputs, "log_decay": door.inputs["log_decay"][:, 0], "u": door.inputs["u"][:, 0]}
    spread = {**one, "log_decay": np.repeat(one["log_decay"][:, None], 5, 1), "u": np.repeat(one["u"][:, None], 5, 1)}
    assert_same(wkvnp.rwkv5(**one), wkvnp.rwkv5(**spread))
