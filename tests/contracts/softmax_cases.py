"""Cases of the softmax kernel, whose state is a class of its own."""

from typing import Any

import numpy as np

from contracts.case import Arrays, Case, decays
from wkvnp.kernels import softmax
from wkvnp.kernels.softmax import oracle as softmax_oracle

# Six heads share two heads of keys; V is more than the width of a tile of registers.
H, G, K, V = 6, 2, 5, 70
SCALE = 0.6


def softmax_case(name: str, forget: bool = False, heads: tuple[str, ...] = (), **options: Any) -> Case:
    kind = softmax.ForgetCache if forget else softmax.KVCache

    def draw(rng: np.random.Generator, M: int, N: int) -> tuple[Arrays, Any]:
        inputs = {
            "q": rng.standard_normal((M, H, K)),
            "k": rng.standard_normal((M, G, K)),
            "v": rng.standard_normal((M, G, V)),
        }
        if forget:
            inputs["log_forget"] = decays(rng, M, H)
        inputs |= {head: np.exp(rng.standard_normal(H) - 3) for head in heads}
        return inputs, kind.draw(rng, {"B": N, "H": H, "G": G, "K": K, "V": V}, np.float64)

    def run(x: Arrays, state: Any, offsets: np.ndarray) -> tuple[np.ndarray, Any]:
        y, _, final = softmax.softmax(**x, state=state, offsets=offsets, scale=SCALE, **options)
        return y, final

    def oracle(x: Arrays, state: Any) -> tuple[np.ndarray, Any]:
        past = {} if state is None else {"past_k": state.parts().k, "past_v": state.parts().v}
        if forget and state is not None:
            past["past_forget"] = np.diff(state.parts().gates, axis=0, prepend=0)
        y, _, (k, v) = softmax_oracle.softmax(**x, **past, scale=SCALE, **options)
        gates = np.cumsum(np.concatenate([past["past_forget"], x["log_forget"]]), axis=0) if past and forget else None
        if forget and gates is None:
            gates = np.cumsum(x["log_forget"], axis=0, dtype=np.float64)
        return y, (k, v, np.array(len(k)), *((gates,) if forget else ()))

    return Case(name, draw, run, oracle, heads, fades=False)


SOFTMAX_CASES = (
    softmax_case("softmax"),
    softmax_case("softmax, window, slopes, sinks, soft cap", heads=("slopes", "sinks"), window=100, cap=3.0),
    softmax_case("softmax, forget gates", forget=True),
)
