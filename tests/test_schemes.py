"""Foreign names: a model written in each scheme reads back as the original, and relatives are refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from foreign_names import Arrays, to_fla_rwkv6, to_fla_rwkv7, to_hugging_face, to_old_fla_rwkv7, to_web_rwkv

from wkvnp.checkpoints import LazyTensor
from wkvnp.errors import CheckpointError
from wkvnp.models._schemes import original_names, refuse_relatives, version

# Letters with sizes that no two axes share; A = H * N.
V, C, A, H, N, F, R, D, L = 11, 10, 12, 3, 4, 17, 2, 5, 2


def names_of(architecture: str) -> dict[str, tuple[int, ...]]:
    """Write down the tensors of each version, independently of the package's declarations."""
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (V, C), "head.weight": (V, C)}
    shapes |= {"blocks.0.ln0.weight": (C,), "blocks.0.ln0.bias": (C,), "ln_out.weight": (C,), "ln_out.bias": (C,)}
    row = (1, 1, C)
    v5 = architecture.startswith("rwkv5")
    for n in range(L):
        att: dict[str, tuple[int, ...]] = {name + ".weight": (A, C) for name in ("receptance", "key", "value")}
        att["output.weight"] = (C, A)
        ffn: dict[str, tuple[int, ...]] = {"key.weight": (F, C), "value.weight": (C, F)}
        if architecture != "rwkv4":
            att |= {"ln_x.weight": (A,), "ln_x.bias": (A,)}
        if architecture == "rwkv4" or v5:
            att |= {f"time_mix_{letter}": row for letter in "kvr"}
            ffn |= {f"time_mix_{letter}": row for letter in "kr"}
        if architecture == "rwkv4":
            att |= {"time_decay": (A,), "time_first": (A,)}
        if architecture == "rwkv5.0":
            att |= {"time_decay": (H,), "time_first": (H,)}
        if architecture in ("rwkv5.1", "rwkv5.2", "rwkv6"):
            att |= {"gate.weight": (A, C), "time_faaaa": (H,) if architecture == "rwkv5.1" else (H, N)}
        if architecture in ("rwkv5.1", "rwkv5.2"):
            att |= {"time_mix_g": row, "time_decay": att["time_faaaa"]}
        if architecture == "rwkv6":
            att |= {f"time_maa_{letter}": row for letter in "xwkvrg"}
            att |= {"time_maa_w1": (C, 5 * R), "time_maa_w2": (5, R, C)}
            att |= {"time_decay": (1, 1, A), "time_decay_w1": (C, D), "time_decay_w2": (D, A)}
            ffn |= {f"time_maa_{letter}": row for letter in "kr"}
        if architecture == "rwkv7":
            att |= {f"x_{letter}": row for letter in "rwkvag"} | {"w0": row, "a0": row, "k_k": row, "k_a": row}
            ranks = dict(zip("wavg", (2, 3, 4, 5), strict=True))
            for letter, rank in ranks.items():
                if letter != "v" or n > 0:
                    att |= {f"{letter}1": (C, rank), f"{letter}2": (rank, C)}
            att |= {"r_k": (H, N)} | ({"v0": row} if n > 0 else {})
            ffn["x_k"] = row
        else:
            ffn["receptance.weight"] = (C, C)
        norms = {f"ln{which}.{part}": (C,) for which in (1, 2) for part in ("weight", "bias")}
        shapes |= {f"blocks.{n}.att.{name}": shape for name, shape in att.items()}
        shapes |= {f"blocks.{n}.ffn.{name}": shape for name, shape in ffn.items()}
        shapes |= {f"blocks.{n}.{name}": shape for name, shape in norms.items()}
    return shapes


def model(architecture: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in names_of(architecture).items()}


def lazy(arrays: dict[str, np.ndarray]) -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(name, array) for name, array in arrays.items()}


def with_state(arrays: Arrays) -> Arrays:
    rng = np.random.default_rng(2)
    return arrays | {f"blocks.{n}.att.time_state": rng.standard_normal((H, N, N)) for n in range(L)}


CASES = {
    "Hugging Face RWKV-4": ("rwkv4", to_hugging_face),
    "Hugging Face RWKV-5": ("rwkv5.2", to_hugging_face),
    "Hugging Face RWKV-6": ("rwkv6", to_hugging_face),
    "FLA RWKV-7": ("rwkv7", to_fla_rwkv7),
    "old FLA RWKV-7": ("rwkv7", to_old_fla_rwkv7),
    "FLA RWKV-6": ("rwkv6", to_fla_rwkv6),
    "web-rwkv RWKV-5": ("rwkv5.2", to_web_rwkv),
    "web-rwkv RWKV-6": ("rwkv6", to_web_rwkv),
    "web-rwkv RWKV-7": ("rwkv7", to_web_rwkv),
    "web-rwkv RWKV-4": ("rwkv4", to_web_rwkv),
}


@pytest.mark.parametrize("case", CASES)
def test_a_foreign_model_reads_back_as_the_original(case: str) -> None:
    architecture, translate = CASES[case]
    arrays: dict[str, Any] = model(architecture)
    if "web" in case and architecture != "rwkv4":
        arrays = with_state(arrays)
    foreign = lazy(translate(arrays))
    ours = original_names(foreign, "a.st")
    assert version(ours, "a.st") == architecture
    assert ours.keys() == arrays.keys()
    for name, array in arrays.items():
        assert ours[name].shape == array.shape, name
        np.testing.assert_array_equal(ours[name].read(), array, err_msg=name)
    refuse_relatives(ours, {}, "a.st")


@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7"])
def test_original_names_stay_as_they_are(architecture: str) -> None:
    tensors = lazy(model(architecture))
    assert original_names(tensors, "a.pth") is tensors
    assert version(tensors, "a.pth") == architecture


def test_versions_by_unusual_shapes() -> None:
    arrays = model("rwkv5.1")
    for n in range(L):
        arrays[f"blocks.{n}.att.time_decay"] = arrays[f"blocks.{n}.att.time_decay"].reshape(H, 1, 1)
    assert version(lazy(arrays), "a.pth") == "rwkv5.1"
    renamed = {name.replace("time_first", "time_faaaa"): array for name, array in model("rwkv5.0").items()}
    assert version(lazy(renamed), "a.pth") == "rwkv5.0"
    # Square low-rank factors do not tell; the first that is not square does.
    arrays = model("rwkv7")
    arrays["blocks.0.att.w1"] = arrays["blocks.0.att.w2"] = np.ones((C, C))
    assert original_names(lazy(arrays), "a.pth")["blocks.0.att.g1"].shape == (C, 5)
    assert original_names(lazy(to_web_rwkv(arrays)), "a.st")["blocks.0.att.g1"].shape == (C, 5)


def test_impossible_shapes_in_a_scheme() -> None:
    foreign = to_old_fla_rwkv7(model("rwkv7"))
    foreign["model.layers.1.attn.x_x"] = np.zeros((5, C - 1))
    with pytest.raises(CheckpointError, match=r"a\.st \(Flash Linear Attention RWKV-7 names\): .*x_x' cannot become"):
        original_names(lazy(foreign), "a.st")


def test_unknown_models_say_what_was_looked_for() -> None:
    tensors = lazy({f"transformer.h.{n}.attn.weight": np.zeros(1) for n in range(6)})
    with pytest.raises(
        CheckpointError, match=r"a\.pth: not a known RWKV: .*att\.r_k .*6 tensors: 'transformer.*, \.\.\.$"
    ):
        version(tensors, "a.pth")
    with pytest.raises(CheckpointError, match="not a known RWKV"):
        version({}, "a.pth")


def test_state_files_point_to_state_load() -> None:
    with pytest.raises(CheckpointError, match=r"only a tuned initial state .*wkvnp\.State\.load\(path, model\)"):
        version(lazy(with_state({})), "a.pth")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("head_q.weight", "head-QK"),
        ("copy_mask", "head-QK"),
        ("pos_emb_x", "position embedding"),
        ("blocks.0.pos_emb_y", "position embedding"),
        ("blocks.0.ffnPre.key.weight", "ffnPre"),
        ("blocks.5.tiny_ln.weight", "tiny attention"),
        ("blocks.1.ffn.aa.weight", "Mish"),
        ("blocks.0.att.gate_w1", "x060a"),
        ("blocks.0.att.time_maa_rkvw_w1", "x060b"),
        ("blocks.3.ffn.s_emb.weight", "DeepEmbed"),
        ("blocks.11.qkv.q.weight", "hybrid"),
        ("rosa_emb.weight", "ROSA"),
        ("blocks.0.rosa_qk.weight", "ROSA"),
    ],
)
def test_relatives_are_refused(name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=rf"a\.pth: this is .*{words}.*{re.escape(name)}"):
        refuse_relatives([*names_of("rwkv7"), name], {}, "a.pth")


@pytest.mark.parametrize("key", ["_strategy", "_version", "_rescale_layer"])
def test_converted_files_are_refused(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"already converted .*'{key}'.*original .pth"):
        refuse_relatives([], {key: 1}, "a.pth")
