"""What every front door promises: being listed in `wkvnp.mechanisms` means being tested here."""

from typing import Any

import numpy as np
import pytest

import wkvnp
from contracts.doors import Door, assert_same, by_name, by_way, parts, pick
from contracts.oracles import ORACLES
from contracts.tolerance import SCAN, assert_close
from wkvnp._dtypes import BFLOAT16, narrow, widen
from wkvnp.errors import ArgumentError, DeviceError, ShapeError
from wkvnp.mechanisms import NAMES


def test_every_mechanism_has_an_oracle_and_is_public() -> None:
    assert set(ORACLES) == set(NAMES) <= set(wkvnp.__all__)


@by_way
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [0, 1, 11])
def test_agrees_with_oracle(way: Any, dtype: str, T: int) -> None:
    door = Door(way, dtype, T=T)
    y, final = door(state=door.state)
    assert y.dtype == dtype
    for b in range(door.sizes["B"]):
        oracle_y, oracle_state = ORACLES[door.name](door.one(b), pick(door.state, b), door.options)
        assert_close(y[b], oracle_y, SCAN[dtype])
        if oracle_state is not None:  # None: what it says depends on its scale, and its own tests compare it
            for ours, theirs in zip(parts(pick(final, b)), parts(oracle_state), strict=True):
                assert_close(ours[None], np.asarray(theirs)[None], SCAN[dtype], "state")


@by_way
def test_no_state_is_the_start_of_a_text(way: Any) -> None:
    door = Door(way, "float64")
    y, _ = door()
    assert_close(y[0], ORACLES[door.name](door.one(0), None, door.options)[0], SCAN["float64"])


@by_way
def test_split_anywhere(way: Any) -> None:
    door = Door(way)
    for state in (door.state, None):
        whole = door(state=state)
        for t in (0, 1, 5, 11):
            y1, carried = door(door.cut(slice(None), slice(0, t)), state=state)
            y2, final = door(door.cut(slice(None), slice(t, None)), state=carried)
            assert_same((np.concatenate([y1, y2], axis=1), final), whole)


@by_way
def test_batch_equals_loop_and_needs_no_batch_axis(way: Any) -> None:
    door = Door(way)
    y, final = door(state=door.state)
    for b in range(2):
        assert_same(door(door.one(b), state=pick(door.state, b)), (y[b], pick(final, b)))


@by_way
def test_ragged_equals_single(way: Any) -> None:
    door = Door(way, B=1)
    offsets = [0, 4, 4, 11]
    states = Door(way, seed=1, B=3).state
    y, final = door(cu_seqlens=offsets, state=states)
    for n in range(3):
        inputs = door.cut(slice(None), slice(offsets[n], offsets[n + 1]))
        alone = door(inputs, state=pick(states, slice(n, n + 1)))
        assert_same(alone, (y[:, offsets[n] : offsets[n + 1]], pick(final, slice(n, n + 1))))


@by_way
def test_reverse_is_flip_run_flip(way: Any) -> None:
    door = Door(way)
    y, final = door(door.cut(slice(None), slice(None, None, -1)), state=door.state)
    assert_same(door(state=door.state, reverse=True), (y[:, ::-1], final))
    alone = Door(way, B=1)
    y, _ = alone(cu_seqlens=[0, 4, 11], reverse=True)
    last, _ = alone(alone.cut(slice(None), slice(4, 11)), reverse=True)
    np.testing.assert_array_equal(y[:, 4:], last)


@by_way
def test_inputs_and_state_untouched(way: Any) -> None:
    door = Door(way)
    inputs = {n: a for n, a in door.inputs.items() if a is not None}
    before = {n: a.copy() for n, a in inputs.items()}
    state = [p.copy() for p in parts(door.state)]
    for array in (*inputs.values(), *parts(door.state)):
        array.flags.writeable = False
    door(state=door.state)
    for n, a in inputs.items():
        np.testing.assert_array_equal(a, before[n])
    for a, b in zip(parts(door.state), state, strict=True):
        np.testing.assert_array_equal(a, b)


@by_way
def test_strides_and_byte_order_do_not_matter(way: Any) -> None:
    door = Door(way)
    odd = {
        n: None if a is None else np.asfortranarray(a).astype(a.dtype.newbyteorder(">")) for n, a in door.inputs.items()
    }
    assert_same(door(odd, state=door.state), door(state=door.state))


@by_way
def test_same_bits_for_any_number_of_threads(way: Any) -> None:
    door = Door(way, T=150)
    results = []
    try:
        for threads in (1, 2):
            wkvnp.set_num_threads(threads)
            results.append(door(state=door.state))
    finally:
        wkvnp.set_num_threads(None)
    assert_same(*results)


@by_way
def test_half_precision_in_and_out_with_a_float32_state(way: Any) -> None:
    door = Door(way, "float16")
    y, final = door()
    y32, final32 = door({n: None if a is None else a.astype(np.float32) for n, a in door.inputs.items()})
    assert y.dtype == np.float16 and parts(final)[0].dtype.name in ("float32", "complex64")
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
            door({**door.inputs, argument: array[..., None, None]})
        longer = np.concatenate([array, array[..., :1]], axis=-1)  # no longer fits the other arguments, or the state
        with pytest.raises(
            ShapeError, match=rf"{name}: .* (must have shape \(.*\) with \w=\d+ as in \w+; got|must divide)"
        ):
            door({**door.inputs, argument: longer}, state=door.state)
    with pytest.raises(ArgumentError, match=rf"{name}: state"):
        door(state=np.zeros((2, 2)))


@by_name
def test_other_bad_input_is_refused(name: str) -> None:
    door = Door(name)
    first = door.sequential()[0]
    with pytest.raises(ArgumentError, match=rf"{name}: {first} must not be a masked array"):
        door({**door.inputs, first: np.ma.masked_array(door.inputs[first])})
    with pytest.raises(ArgumentError, match=rf"{name}: {first} must be real floating point .* got complex"):
        door({**door.inputs, first: door.inputs[first] + 1j})
    with pytest.raises(ShapeError, match=rf"{name}: with cu_seqlens the batch axis must be 1; got B=2"):
        door(cu_seqlens=[0, 11])
    for offsets in ([0, 5], [1, 11], [0, 7, 3, 11]):
        with pytest.raises(ArgumentError, match=rf"{name}: cu_seqlens must rise from 0 to T=11"):
            Door(name, B=1)(cu_seqlens=offsets)
    for i in door.spec.inputs:
        if i.domain in ("log_decay", "pole"):
            with pytest.raises(ArgumentError, match=rf"{name}: {i.name} must be at most 0"):
                door({**door.inputs, i.name: -door.inputs[i.name]})
        outside = {"gate": (-0.1, 1.1), "strength": (-0.1, 2.1), "positive": (-0.1,)}.get(i.domain, ())
        for number in outside:
            with pytest.raises(
                ArgumentError, match=rf"{name}: {i.name} must (be between 0 and [12]; got|not be negative)"
            ):
                door({**door.inputs, i.name: np.full_like(door.inputs[i.name], number)})
    if len(door.inputs) > 1:
        with pytest.raises(ArgumentError, match=rf"{name}: {first} is float64 but .* is float32"):
            door({**door.inputs, first: door.inputs[first].astype(np.float64)})


@by_name
def test_arrays_on_a_gpu_are_not_moved_silently(name: str) -> None:
    class OnGPU:
        __cuda_array_interface__ = None

    door = Door(name)
    with pytest.raises(DeviceError, match=f"{name}: "):
        door({**door.inputs, door.sequential()[0]: OnGPU()})


def test_rwkv5_takes_one_number_a_head() -> None:
    door = Door("rwkv5", "float64")
    one = {**door.inputs, "log_decay": door.inputs["log_decay"][:, 0], "u": door.inputs["u"][:, 0]}
    spread = {**one, "log_decay": np.repeat(one["log_decay"][:, None], 5, 1), "u": np.repeat(one["u"][:, None], 5, 1)}
    assert_same(wkvnp.rwkv5(**one), wkvnp.rwkv5(**spread))
