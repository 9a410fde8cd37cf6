"""Binding tensors to declared weights: every letter solved, every fault named, every name given back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pytest

from wkvnp._dtypes import BFLOAT16, widen
from wkvnp.checkpoints import LazyTensor
from wkvnp.checkpoints.naming import (
    Array,
    Group,
    Matrix,
    Norm,
    Renamed,
    Reorder,
    Reshape,
    Rule,
    Transpose,
    bind,
    build,
    declare,
    flatten,
    read,
)
from wkvnp.errors import CheckpointError


@dataclass(frozen=True, eq=False)
class TimeMix:
    x_r: Annotated[Array, "1 1 C"]
    mix: Annotated[Array, "C 5R"]
    heads: Annotated[Array, "H N"]
    receptance: Annotated[Matrix, "A C"]
    ln_x: Annotated[Norm, "A"]
    v0: Annotated[Array | None, "1 1 C"] = None


@dataclass(frozen=True, eq=False)
class Block:
    ln1: Annotated[Norm, "C"]
    att: TimeMix
    ln0: Annotated[Norm | None, "C"] = None
    derived: Any = field(default=None, init=False)


@dataclass(frozen=True, eq=False)
class Weights:
    emb: Annotated[Matrix, "V C"]
    blocks: tuple[Block, ...]


SIZES = {"V": 11, "C": 7, "A": 6, "H": 2, "N": 3, "R": 4}


def arrays_of(n_layer: int = 2, sizes: dict[str, int] = SIZES, optional: Any = None) -> dict[str, np.ndarray]:
    shapes = declare(Weights, sizes, n_layer, optional)
    return {name: np.full(shape, number, np.float32) for number, (name, shape) in enumerate(shapes.items())}


def lazy(arrays: dict[str, np.ndarray]) -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(name, array) for name, array in arrays.items()}


def fault(arrays: dict[str, np.ndarray], words: str, **options: Any) -> str:
    with pytest.raises(CheckpointError, match=words) as caught:
        bind(Weights, lazy(arrays), source="a.pth", **options)
    assert str(caught.value).startswith("a.pth: ")
    return str(caught.value)


def test_declared_names_are_dotted_paths() -> None:
    assert declare(Weights, SIZES, 1) == {
        "emb.weight": (11, 7),
        "blocks.0.ln1.weight": (7,),
        "blocks.0.ln1.bias": (7,),
        "blocks.0.att.x_r": (1, 1, 7),
        "blocks.0.att.mix": (7, 20),
        "blocks.0.att.heads": (2, 3),
        "blocks.0.att.receptance.weight": (6, 7),
        "blocks.0.att.ln_x.weight": (6,),
        "blocks.0.att.ln_x.bias": (6,),
    }
    added = declare(Weights, SIZES, 3, lambda name: name.startswith("blocks.0.ln0") or name == "blocks.2.att.v0")
    assert added.keys() - declare(Weights, SIZES, 3).keys() == {
        "blocks.2.att.v0",
        "blocks.0.ln0.weight",
        "blocks.0.ln0.bias",
    }


def test_binding_finds_every_size() -> None:
    arrays = arrays_of(3)
    bound, sizes = bind(Weights, lazy(arrays), source="a.pth")
    weights = read(bound)
    assert sizes == SIZES | {"L": 3}
    assert len(weights.blocks) == 3
    assert weights.blocks[1].att.v0 is None
    assert weights.blocks[1].ln0 is None
    assert weights.blocks[2].derived is None
    assert weights.blocks[2].att.receptance.weight[0, 0] == arrays["blocks.2.att.receptance.weight"][0, 0]
    again = flatten(weights)
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())
    assert flatten(build(Weights, again)).keys() == arrays.keys()


def test_optional_fields() -> None:
    chosen = {"blocks.1.att.v0", "blocks.0.ln0.weight", "blocks.0.ln0.bias"}
    arrays = arrays_of(2, optional=chosen.__contains__)
    weights, _ = bind(Weights, lazy(arrays), source="a.pth")
    assert weights.blocks[0].att.v0 is None
    assert weights.blocks[1].att.v0 is not None
    assert weights.blocks[0].ln0 is not None
    assert weights.blocks[1].ln0 is None
    assert flatten(weights).keys() == arrays.keys()
    del arrays["blocks.0.ln0.bias"]
    fault(arrays, "1 tensor is missing: blocks.0.ln0.bias")
    bind(Weights, lazy(arrays), source="a.pth", ignore=[r"blocks\.\d+\.ln0\..*"])
    fault(arrays_of(2), r"1 tensor is missing: blocks\.1\.att\.v0", require=[r"blocks\.1\.att\.v0"])


def test_axes_of_size_1_may_be_missing_or_added() -> None:
    arrays = arrays_of(2)
    arrays["blocks.0.att.x_r"] = arrays["blocks.0.att.x_r"].reshape(7)
    arrays["blocks.1.att.x_r"] = arrays["blocks.1.att.x_r"].reshape(7, 1)
    arrays["blocks.0.ln1.bias"] = arrays["blocks.0.ln1.bias"].reshape(1, 7, 1)
    weights = read(bind(Weights, lazy(arrays), source="a.pth")[0])
    assert weights.blocks[0].att.x_r.shape == weights.blocks[1].att.x_r.shape == (1, 1, 7)
    assert weights.blocks[0].ln1.bias.shape == (7,)


def test_squeezed_tensors_wait_for_letters_from_the_others() -> None:
    """With one head, a squeezed (H, N) is only a vector; another layer says which letter is 1."""
    sizes = SIZES | {"H": 1, "N": 6}
    arrays = arrays_of(2, sizes)
    arrays["blocks.0.att.heads"] = arrays["blocks.0.att.heads"].reshape(6)
    weights, found = bind(Weights, lazy(arrays), source="a.pth")
    assert found == sizes | {"L": 2}
    assert weights.blocks[0].att.heads.shape == (1, 6)
    arrays["blocks.1.att.heads"] = arrays["blocks.1.att.heads"].reshape(6)
    fault(arrays, r"2 tensors are of the wrong shape: blocks\.0\.att\.heads must be \(H, N\), is \(6,\)")


def test_sizes_of_1_everywhere() -> None:
    sizes = dict.fromkeys(SIZES, 1)
    arrays = arrays_of(1, sizes)
    assert bind(Weights, lazy(arrays), source="a.pth")[1] == sizes | {"L": 1}
    flat = {name: array.reshape(()) if array.size == 1 else array for name, array in arrays.items()}
    weights, found = bind(Weights, lazy(flat), source="a.pth")
    assert found == sizes | {"L": 1}
    assert weights.blocks[0].att.x_r.shape == (1, 1, 1)


def test_each_fault_is_named() -> None:
    arrays = arrays_of(2)
    fault({**arrays, "extra": np.zeros(1)}, r"1 tensor is left over: 'extra'$")
    fault({**arrays, "emb.weight": np.zeros((11, 7), np.int64)}, r"not floating point: emb\.weight \(int64\)")
    fault({**arrays, "emb.weight": np.zeros((11, 0), np.float32)}, r"emb\.weight must be \(V, C=7\), is \(11, 0\)")
    wrong = {**arrays, "blocks.1.att.receptance.weight": np.zeros((7, 6), np.float32)}
    fault(
        wrong, r"1 tensor is of the wrong shape: blocks\.1\.att\.receptance\.weight must be \(A=6, C=7\), is \(7, 6\)"
    )
    fault({**arrays, "blocks.1.att.mix": np.zeros((7, 21), np.float32)}, r"must be \(C=7, 5R=20\), is \(7, 21\)")
    fault({**arrays, "blocks.1.att.x_r": np.zeros((7, 7), np.float32)}, r"must be \(1, 1, C=7\), is \(7, 7\)")
    message = fault({**{f"y{n}": np.zeros(1) for n in range(9)}, **wrong}, "9 tensors are left over")
    assert message.endswith("'y0', 'y1', 'y2', 'y3', 'y4' and 4 more")
    assert "wrong shape" in message
    message = fault({}, r"9 tensors are missing: emb\.weight, blocks\.0\.ln1\.weight.* and 4 more")
    assert "left over" not in message
    fault({**arrays, "x" * 10**6: np.zeros(1)}, r"left over: 'x+\.\.\.$")
    fault({**arrays, "." * 10**5: np.zeros(1)}, "left over")
    fault({**arrays, "blocks.x.ln1.weight": np.zeros(7)}, "left over: 'blocks.x.ln1.weight'")
    fault({**arrays, "blocks.01.ln1.weight": np.zeros(7)}, "left over: 'blocks.01.ln1.weight'")


def test_a_gap_in_the_blocks() -> None:
    arrays = {name: array for name, array in arrays_of(4).items() if not name.startswith("blocks.2.")}
    message = fault(arrays, r"1 tensor is missing: blocks\.2\.\*; 8 tensors are left over: 'blocks\.3")
    assert message.count("blocks.2") == 1
    fault(arrays_of(2) | {"blocks.999999999999.ln1.weight": np.zeros(7)}, r"missing: blocks\.2\.\*")


def test_binding_reads_nothing() -> None:
    def refuse() -> np.ndarray:
        raise AssertionError("read too early")

    arrays = arrays_of(2)
    arrays["blocks.0.att.x_r"] = arrays["blocks.0.att.x_r"].reshape(7)
    tensors = {name: LazyTensor(name, array.shape, "float32", refuse) for name, array in arrays.items()}
    weights, _ = bind(Weights, tensors, source="a.pth")
    assert weights.blocks[0].att.x_r.shape == (1, 1, 7)
    assert [tensor.name for tensor in flatten(weights).values()] == list(arrays)
    with pytest.raises(AssertionError, match="too early"):
        read(weights)


def test_convert_sees_the_declared_shape() -> None:
    arrays = arrays_of(1)
    arrays["blocks.0.att.x_r"] = arrays["blocks.0.att.x_r"].reshape(7).astype(np.uint16).view(BFLOAT16)
    seen = {}

    def convert(name: str, array: np.ndarray) -> np.ndarray:
        seen[name] = array.shape
        return widen(array)

    weights = read(bind(Weights, lazy(arrays), source="a.pth")[0], convert)
    assert seen == declare(Weights, SIZES, 1)
    assert weights.blocks[0].att.x_r.dtype == np.float32


def test_build_needs_what_is_not_optional() -> None:
    arrays = arrays_of(1)
    del arrays["blocks.0.att.mix"]
    with pytest.raises(KeyError, match=r"blocks\.0\.att\.mix"):
        build(Weights, arrays)


# Other names and layouts.


def renamed(array: np.ndarray, ours: str | tuple[str, ...], *steps: Any) -> dict[str, np.ndarray]:
    tensors = Renamed({"x": LazyTensor.of("x", array)}, [Rule("x", ours, steps)], source="a.pth")
    for name, tensor in tensors.items():
        got = tensor.read()
        assert tensor.name == name
        assert got.shape == tensor.shape
        assert got.flags.c_contiguous
        assert not got.flags.writeable
    return {name: tensor.read() for name, tensor in tensors.items()}


def test_steps() -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    flat = x.reshape(12, 5)
    assert np.array_equal(renamed(x, "y", Transpose())["y"], x.transpose(0, 2, 1))
    assert np.array_equal(renamed(x, "y", Reshape((1, 1, -1)))["y"], x.reshape(1, 1, 60))
    assert np.array_equal(renamed(x, "y", Reshape((12, 5)))["y"], flat)
    assert np.array_equal(renamed(flat, "y", Group(3))["y"], x)
    assert np.array_equal(renamed(x, "y", Reorder((2, 0, 1)))["y"], x[[2, 0, 1]])
    assert np.array_equal(renamed(flat, "y", Reorder((2, 0, 1)))["y"], x[[2, 0, 1]].reshape(12, 5))
    parts = renamed(x, ("a", "b", "c"))
    assert list(parts) == ["a", "b", "c"]
    assert np.array_equal(parts["b"], x[1:2])
    parts = renamed(flat, ("a", "b"), Transpose(), Reshape((4, -1)))
    assert np.array_equal(parts["b"], flat.T.reshape(4, 15)[2:])


@pytest.mark.parametrize(
    ("shape", "ours", "steps"),
    [
        ((3,), "y", (Transpose(),)),
        ((3, 4), "y", (Reshape((5, -1)),)),
        ((3, 4), "y", (Reshape((2, 5)),)),
        ((7, 2), "y", (Group(3),)),
        ((), "y", (Group(1),)),
        ((7, 2), "y", (Reorder((1, 0)), Transpose())),
        ((7, 2), ("y", "z"), ()),
        ((), ("y", "z"), ()),
    ],
)
def test_steps_that_a_shape_does_not_allow(shape: tuple[int, ...], ours: Any, steps: Any) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pth: tensor 'x' cannot become y"):
        renamed(np.zeros(shape), ours, *steps)


def test_rules_and_names() -> None:
    tensors = lazy({"layers.3.k_mu": np.zeros(2), "other": np.zeros(3)})
    rules = [Rule(r"layers\.(\d+)\.(\w)_mu", r"blocks.\1.x_\2"), Rule(r"layers.*", "never")]
    ours = Renamed(tensors, rules, source="a.pth")
    assert list(ours) == ["blocks.3.x_k", "other"]
    assert len(ours) == 2
    assert "layers.3.k_mu" not in ours
    with pytest.raises(CheckpointError, match="two tensors are both 'other'"):
        Renamed(tensors, [Rule("layers.*", "other")], source="a.pth")
