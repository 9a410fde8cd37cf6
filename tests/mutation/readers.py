"""What is done with an input: everything that a person may do with a file of its kind."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import wkvnp
from wkvnp._quantised import Quantised
from wkvnp.checkpoints import open_checkpoint
from wkvnp.checkpoints.naming import flatten
from wkvnp.cli import info
from wkvnp.errors import WkvnpError
from wkvnp.tokenizers.folder import has_chat_template

from .seeds_states import model_of

TEXTS = ("the th\n", "  a\0é日本 <s></s>'s", "a" * 40 + "c", "")
_COMPUTED = {"float32", "int8", "int4"}  # kernels for other dtypes would be compiled within the time of one input


def read_model(path: Path) -> bool:
    """Read every tensor, describe the file, load the model, and feed it tokens."""
    open_checkpoint(path)
    return _all(path, (_read_tensors, _describe, _load, _convert))


def read_gguf(path: Path) -> bool:
    """Do the same, and read the metadata and the vocabulary among them."""
    accepted = read_model(path)
    _all(path, (_read_metadata, _read_vocabulary))
    return accepted


def read_folder(path: Path) -> bool:
    """Read a folder's model, whose tensors are as they were, its vocabulary and what ends a text."""
    accepted = _all(path, (_load_and_describe,))
    _all(path, (_read_vocabulary, has_chat_template))
    return accepted


def read_state(path: Path) -> bool:
    """Read a state of the model that the file is called after, and go on from it."""
    open_checkpoint(path)
    return _all(path, (_read_tensors, _go_on))


def read_vocabulary(path: Path) -> bool:
    """Read a vocabulary, and write texts in it."""
    _read_vocabulary(path)
    return True


def read_world(path: Path) -> bool:
    """Read a World vocabulary, whose texts come back as they were."""
    vocabulary = _read_vocabulary(path)
    for text in TEXTS:
        assert vocabulary.decode(vocabulary.encode(text)) == text, "a text does not come back"
    return True


def _all(path: Path, steps: tuple[Callable[[Path], object], ...]) -> bool:
    """Take every step, also behind one that was refused; return whether none was."""
    refused = 0
    for step in steps:
        try:
            step(path)
        except WkvnpError:
            refused += 1
    return not refused


def _read_tensors(path: Path) -> None:
    container = open_checkpoint(path)
    buffers = [_bounds(np.frombuffer(buffer, np.uint8)) for _, buffer in container.files if len(buffer)]
    for tensor in container.tensors.values():
        array = tensor.read()
        assert tuple(array.shape) == tuple(tensor.shape), f"{tensor.name} is read as {array.shape}"
        for part in (array.codes, array.scales) if isinstance(array, Quantised) else (array,):
            assert _inside(part, buffers), f"{tensor.name} is read from outside the file"
            _touch(part)


def _bounds(array: np.ndarray) -> tuple[int, int]:
    return np.lib.array_utils.byte_bounds(array)


def _inside(array: np.ndarray, buffers: list[tuple[int, int]]) -> bool:
    """Return whether all numbers lie in one of the files, or in memory that an array owns."""
    if not array.size:
        return True
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    places = [_bounds(owner)] if owner.base is None else buffers
    low, high = _bounds(array)
    return any(start <= low and high <= stop for start, stop in places)


def _touch(array: np.ndarray) -> None:
    """Read every byte, so that one outside of all memory ends the process here."""
    if array.size:
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).max()


def _describe(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        info.run(argparse.Namespace(path=str(path), system=False, json=False, program=False, ignore=[]))


def _load(path: Path) -> None:
    model = wkvnp.load(path)
    assert repr(model)
    for array in flatten(model.stored).values():
        for part in (array.codes, array.scales) if isinstance(array, Quantised) else (array,):
            _touch(part)
    if {tensor.dtype for tensor in open_checkpoint(path).tensors.values()} <= _COMPUTED:
        _compute(model)


def _convert(path: Path) -> None:
    """Load the model in other dtypes, which not every model can be kept in."""
    for dtype in ("float16", "int8"):
        with contextlib.suppress(WkvnpError):
            wkvnp.load(path, dtype=dtype)


def _load_and_describe(path: Path) -> None:
    _load(path)
    _describe(path)


def _compute(model: wkvnp.Model) -> None:
    """Feed two tokens at once, and then one."""
    logits, state = model([0, 0])
    logits, _ = model([0], state)
    assert logits.shape == (model.config.vocab_size,), f"logits have the shape {logits.shape}"


def _read_metadata(path: Path) -> None:
    for value in open_checkpoint(path).extras.values():
        assert repr(value)
        for _ in value if not isinstance(value, str) and hasattr(value, "__len__") else ():
            pass


def _read_vocabulary(path: Path) -> Any:
    vocabulary = wkvnp.load_tokenizer(path)
    for text in TEXTS:
        for ids in (vocabulary.encode(text), vocabulary.begin(text)):
            assert ids.size == 0 or 0 <= ids.min() <= ids.max() < vocabulary.vocab_size, (
                "an id is not in the vocabulary"
            )
            vocabulary.decode(ids)
            decoder = vocabulary.decoder()
            for id in ids:
                decoder.feed(int(id))
            decoder.flush()
    assert repr(vocabulary)
    return vocabulary


def _go_on(path: Path) -> None:
    model = model_of(path.stem)
    state = wkvnp.State.load(path, model)
    assert state.nbytes >= 0 and repr(state.dtype)
    state.copy()
    if 0 < state.batch <= 8:
        logits, _ = model([[1]] * state.batch, state)
        assert logits.shape == (state.batch, model.config.vocab_size), f"logits have the shape {logits.shape}"
