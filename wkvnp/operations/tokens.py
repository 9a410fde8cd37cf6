"""Blocks on one token of every sequence: operations become steps of a program.

A value is an operand, or every worker makes it for itself in each phase that reads it (`recording.Private`): a norm
costs less than the wait that would share it.

Letters: C channels, A attention width, N head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from .._quantised import BLOCK_ROWS, Quantised
from ..decoding import Operand, Pair, Program, Unsuitable
from ..decoding.attention import ATTENTION, UNLIMITED
from ..decoding.attention import scratch_of_groups as scratch_of_attention
from ..decoding.gated_linear import GATED_LINEAR
from ..decoding.gated_linear import scratch_of_heads as scratch_of_gated_linear
from ..decoding.integer_dots import QUANTISE, bytes_of_activations
from ..decoding.integer_product import INTEGER_PRODUCT, scratch_of_integers
from ..decoding.mamba1 import SCRATCH as SCRATCH_OF_SELECTIVE
from ..decoding.mamba1 import SELECTIVE
from ..decoding.mamba1 import blocks_of_channels as blocks_of_selective
from ..decoding.mamba2 import STATE_SPACE
from ..decoding.mamba2 import scratch_of_heads as scratch_of_state_space
from ..decoding.memory import padded
from ..decoding.product import PRODUCT, blocks_of, scratch_of_products
from ..decoding.rows import CONVOLVE, COPY, EMBED, GATE, MIX, NORM, PUSH
from ..decoding.rwkv4 import WKV
from ..decoding.rwkv4 import blocks_of_channels as blocks_of_wkv
from ..decoding.rwkv7 import RWKV7
from ..decoding.rwkv7 import scratch_of_heads as scratch_of_rwkv7
from ..primitives.linear_map import Activation
from .interface import Array, LowRank, Mixes, Operations, Product, SoftmaxAttention
from .recording import Factored, Part, Private, Recorder

_WKV = {"numerator": "aa", "denominator": "bb", "exponent": "pp"}


class Tokens(Recorder, Operations):
    """An executor that adds the steps of a block to a program.

    Parameters
    ----------
    program : Program
    cells : dict of str to pair of Operand
        The arrays of the layer's state before and after, by their dotted names.

    Attributes
    ----------
    grown : list of Operand
        Slots for the arrays that grow with the text, in the order of `AttentionState`'s.
    """

    def __init__(self, program: Program, cells: dict[str, Pair], prefix: str = "") -> None:
        super().__init__(program, cells, prefix)
        self.grown: list[Operand] = []
        self._known_codes: dict[Any, Any] = {}

    # Whole rows.

    def embed(self, tokens: Operand, table: Array, norm: tuple[Array, Array, float] | None, name: str) -> Operand:
        """Return the rows of a table (V, C) that tokens name, and their layer norm."""
        x = self.program.memory.buffer(name, table.shape[1])
        scale, shift, eps = norm or (None, None, 0.0)
        self.add_step(EMBED, name, tokens=tokens, table=table, x=x, scale=scale, shift=shift, eps=eps, blocks=1)
        return x

    def layer_norm(self, name: str, x: Any, weight: Array, bias: Array, eps: float) -> Any:
        return self._norm(name, x, weight, bias, eps, 1)

    def rms_norm(self, name: str, x: Any, weight: Array, eps: float, groups: int = 1) -> Any:
        return self._norm(name, x, np.tile(weight, _size(x) // len(weight)), None, eps, groups)

    def _norm(self, name: str, x: Any, weight: Array, bias: Array | None, eps: float, groups: int) -> Any:
        C = _size(x)

        def add(x: Operand) -> Operand:
            y = self.private(name, C)
            self.program.add(NORM, y.name, x=x, y=y, weight=weight, bias=bias, group=C // groups, eps=eps)
            return y

        return Part(Private([x], add), 0, C)

    def previous(self, x: Any, cell: str) -> Operand:
        before, after = self.cells[cell]
        self.add_step(COPY, cell, x=x, y=after, blocks=1)
        return before

    def mix(self, x: Any, previous: Any, mixes: Mixes, moved: Any = None) -> list[Any]:
        J, C = mixes.share.shape

        def add(x: Operand, previous: Operand, moved: Operand | None = None) -> Operand:
            y = self.private(" ".join(mixes.names), J * C)
            self.program.add(MIX, y.name, z=x, previous=previous, share=mixes.share, moved=moved, y=y)
            return y

        made = Private([x, previous] + ([] if moved is None else [moved]), add)
        return [Part(made, j * C, C, self.label(name)) for j, name in enumerate(mixes.names)]

    def gate(self, name: str, x: Any, gate: Any) -> Any:
        def add(x: Operand, gate: Operand) -> Operand:
            y = self.private(name, x.size)
            self.program.add(GATE, y.name, x=x, gate=gate, y=y)
            return y

        return Part(Private([x, gate], add), 0, _size(x))

    def convolve(self, name: str, x: Any, weight: Array, bias: Array | None, cell: str) -> Any:
        C = weight.shape[1]
        bias = np.zeros(C, np.float32) if bias is None else bias

        def add(x: Operand) -> Operand:
            y = self.private(name, C)
            window = self.cells[cell]
            self.program.add(CONVOLVE, y.name, x=x, window=window, weight=weight, bias=bias, y=y)
            return y

        self.add_step(PUSH, cell, x=x, window=self.cells[cell], blocks=1)
        return Part(Private([x], add, kept=True), 0, C)

    def split(self, x: Any, **sizes: int) -> list[Any]:
        parts, begin = [], 0
        for name, size in sizes.items():
            parts.append(Part(x, begin, size, self.label(name)))
            begin += size
        return parts

    # Products.

    def multiply(self, **wanted: Product | LowRank) -> list[Any]:
        results: list[Any] = []
        for name, each in wanted.items():
            if isinstance(each, LowRank):
                low = self.buffer(f"{name} low", each.down.shape[1])
                self._product(f"{name} low", Product(each.x, each.down.T, each.activation), low)
                results.append(Factored(low, np.ascontiguousarray(each.up.T)))
            else:
                results.append(self.buffer(name, each.weight.shape[0]))
                self._product(name, each, results[-1])
        return results

    def low_rank_groups(self, name: str, x: Any, down: Array, up: Array, activation: Activation) -> Operand:
        J, R, C = up.shape
        low, moved = self.buffer(f"{name} low", J * R), self.buffer(name, J * C)
        self._product(f"{name} low", Product(x, down.T, activation), low)
        for j in range(J):
            self._product(f"{name} {j}", Product(low.part(j * R, R), up[j].T), moved.part(j * C, C))
        return moved

    def add_product(self, x: Operand, product: Product, gate: Any = None) -> Operand:
        self._product("x", product, x, mode="add" if gate is None else "add gated", gate=gate)
        return x

    def add_feed_forward(self, x: Operand, hidden: Product, out: Array, gate: Any = None) -> Operand:
        (k,) = self.multiply(k=hidden)
        return self.add_product(x, Product(k, out), gate)

    def logits(self, x: Any, weight: Array, y: Operand) -> None:
        """Set the logits, a slot, to the product of x and the head."""
        self._product("logits", Product(x, weight), y)

    def _product(self, name: str, product: Product, y: Operand, mode: str = "store", gate: Any = None) -> None:
        weight, rows = product.weight, self.program.rows
        blocks, units = blocks_of(weight, BLOCK_ROWS if isinstance(weight, Quantised) else 1)
        how: dict[str, Any] = {"activation": product.activation, "bias": product.bias, "mode": mode, "units": units}
        if isinstance(weight, Quantised):
            kind, scratch, x = (
                INTEGER_PRODUCT,
                scratch_of_integers(rows, weight.shape[1]),
                self._codes(product.x, weight),
            )
        else:
            kind, scratch, x = PRODUCT, scratch_of_products(rows), product.x
        self.add_step(kind, name, x=x, W=weight, y=y, gate=gate, blocks=blocks, scratch=scratch, **how)

    def _codes(self, x: Any, weight: Quantised) -> Any:
        """Return activations as codes and scales, for weights of a dtype: a private value, one for each x."""
        known = self._known_codes
        key = (x if isinstance(x, Operand) else (id(x.of), x.begin), weight.dtype)
        if key not in known:
            size = padded(bytes_of_activations(_size(x)) // 4)

            def add(x: Operand) -> Operand:
                y = self.private(f"codes of {x.name}", size)
                self.program.add(QUANTISE, y.name, x=x, y=y, codes=weight.dtype)
                return y

            known[key] = (Part(Private([x], add), 0, size), x)
        return known[key][0]

    # Recurrences and attention.

    def wkv(self, r: Any, k: Any, v: Any, log_decay: Array, u: Array, cell: str) -> Operand:
        A = len(u)
        y = self.buffer("y", A)
        state = {part: self.cells[f"{cell}.{name}"] for part, name in _WKV.items()}
        self.add_step(WKV, "y", r=r, k=k, v=v, y=y, log_decay=log_decay, u=u, blocks=blocks_of_wkv(A), **state)
        return y

    def gated_linear(
        self, r: Any, k: Any, v: Any, g: Any, decay: Array | tuple[Array, Any], u: Array, norm: tuple[Array, Array],
        eps: float, heads: int, cell: str,
    ) -> Operand:  # fmt: skip
        A = _size(r)
        y = self.buffer("y", A)
        if isinstance(decay, tuple):
            low: dict[str, Any] = {"decay": decay[0], "decay_low": decay[1].low, "decay_up": decay[1].up}
        else:
            low = {"decay": np.repeat(decay.reshape(-1), A // decay.size)}
        self.add_step(
            GATED_LINEAR, "y", r=r, k=k, v=v, gate=g, y=y, u=np.repeat(u.reshape(-1), A // u.size), weight=norm[0],
            bias=norm[1], state=self.cells[cell], N=A // heads, eps=eps, row_blocks=heads,
            scratch=scratch_of_gated_linear(A // heads), **low,
        )  # fmt: skip
        return y

    def rwkv7(
        self, r: Any, w: Any, k: Any, v: Any, a: Any, g: Any, nu: Any, v_first: Any, constants: Array, eps: float,
        heads: int, cell: str,
    ) -> Operand:  # fmt: skip
        A = _size(r)
        y, names = self.buffer("y", A), ("w0", "a0", "v0", "k_k", "k_a", "r_k", "weight", "bias")
        low = {f"{letter}_low": pair.low for letter, pair in zip("wagv", (w, a, g, nu), strict=True) if pair}
        up = {f"{letter}_up": pair.up for letter, pair in zip("wagv", (w, a, g, nu), strict=True) if pair}
        self.add_step(
            RWKV7, "y", r=r, k=k, v=v, v_first=v_first if nu else None, y=y, **low, **up,
            **dict(zip(names, constants, strict=True)), state=self.cells[cell], N=A // heads, eps=eps,
            row_blocks=heads, scratch=scratch_of_rwkv7(A // heads),
        )  # fmt: skip
        return y

    def selective(
        self, x: Any, z: Any, dt: Any, dt_weight: Array, dt_bias: Array, B: Any, C: Any, A: Array, D: Array, cell: str
    ) -> Operand:
        E = len(D)
        y = self.buffer("y", E)
        self.add_step(
            SELECTIVE, "y", x=x, z=z, dt_low=dt, B=B, C=C, y=y, dt_up=dt_weight, dt_bias=dt_bias, A=A.T, D=D,
            state=self.cells[cell], blocks=blocks_of_selective(E), scratch=SCRATCH_OF_SELECTIVE,
        )  # fmt: skip
        return y

    def state_space(
        self, x: Any, B: Any, C: Any, dt: Any, dt_bias: Array, A: Array, D: Array, limits: tuple[float, float],
        groups: int, cell: str,
    ) -> Operand:  # fmt: skip
        y, H = self.buffer("y", _size(x)), len(A)
        self.add_step(
            STATE_SPACE, "y", x=x, B=B, C=C, dt=dt, y=y, dt_bias=dt_bias, A=A, D=D, state=self.cells[cell],
            least=limits[0], largest=limits[1], row_blocks=H, G=groups,
            scratch=scratch_of_state_space(_size(B) // groups, _size(x) // H),
        )  # fmt: skip
        return y

    def attention(self, q: Any, k: Any, v: Any, how: SoftmaxAttention) -> Operand:
        slot, H, K = self.program.memory.slot, how.heads, how.width
        cos, sin = slot(self.label("cos"), how.rotated // 2), slot(self.label("sin"), how.rotated // 2)
        keys, values = slot(self.label("keys"), 0), slot(self.label("values"), 0)
        base, length = slot(self.label("base"), 1, 8), slot(self.label("length"), 1, 8)
        self.grown += [cos, sin, keys, values, base, length]
        y = self.buffer("y", H * K)
        self.add_step(
            ATTENTION, "y", q=q, k=k, v=v, y=y, q_norm=how.q_norm, k_norm=how.k_norm, cos=cos, sin=sin, keys=keys,
            values=values, base=base, length=length, scales=np.array([K**-0.5, 0], np.float32), H=H, G=how.groups, K=K,
            window=UNLIMITED if how.window is None else how.window, eps=how.eps, row_blocks=how.groups,
            scratch=scratch_of_attention(H, K),
        )  # fmt: skip
        return y

    # What has no step yet.

    def add(self, x: Any, y: Any) -> NoReturn:
        raise Unsuitable("a sum of values has no step")

    def delta_rule(self, *arguments: Any, **options: Any) -> NoReturn:
        raise Unsuitable("the gated delta rule has no step")

    def interleaved(self, x: Any, heads: int, **sizes: int) -> NoReturn:
        raise Unsuitable("interleaved heads have no step")

    def join(self, *parts: Any) -> NoReturn:
        raise Unsuitable("joined channels have no step")

    def sigmoid_gate(self, name: str, x: Any, gate: Any) -> NoReturn:
        raise Unsuitable("a sigmoid gate has no step")

    def experts(self, x: Any, router: Array, run: Sequence[Any], chosen: int, normalize: bool) -> NoReturn:
        raise Unsuitable("a mixture of experts has no step")


def _size(value: Any) -> int:
    """Return the numbers of a row of a value."""
    return int(value.size)
