"""llama.cpp through ``llama-cpp-python``: its own functions for contexts and batches, no sampler, no text.

    llama_cpp_python.py PATH THREADS

Reads two tokens with its repacked weights. Their products have crashed where a virtual machine announces matrix units
that it does not lend; a process that may crash finds out, and where it does the weights stay as they are in the file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

TITLE, PACKAGES = "llama.cpp", ("llama_cpp", "gguf")
FORMATS = ("float32", "bfloat16", "int8", "int4")
SUFFIX = ".gguf"
BATCH = 512


def write(source: Path, path: Path, form: str) -> None:
    """Write the weights as GGUF."""
    from gguf_file import write_gguf

    write_gguf(source, path, form)


def prepare(path: Path, form: str, threads: int) -> Runner:
    """Load a model; the file says in which format."""
    trial = subprocess.run([sys.executable, __file__, path, str(threads)], capture_output=True)
    if trial.returncode:
        print(f"repacked weights fail ({trial.returncode}); going on without", file=sys.stderr)
    return loaded(path, threads, repacked=not trial.returncode)


def loaded(path: Path, threads: int, *, repacked: bool) -> Runner:
    """Load a model, with or without weights in the order that its products like best."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.use_extra_bufts = repacked
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = 4 * BATCH
    settings.n_batch = settings.n_ubatch = BATCH
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings) if model else None
    if not context:
        raise RuntimeError(f"llama.cpp cannot load {path.name}")
    return Runner(llama_cpp, model, context)


class Runner:
    """A context: a model and the state after what it was last given."""

    def __init__(self, library: Any, model: Any, context: Any) -> None:
        self.library, self.context = library, context
        self.vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))

    def feed(self, tokens: list[int]) -> None:
        ids = (self.library.llama_token * len(tokens))(*tokens)
        if status := self.library.llama_decode(self.context, self.library.llama_batch_get_one(ids, len(tokens))):
            raise RuntimeError(f"llama_decode ended with {status}")

    def logits(self) -> np.ndarray:
        pointer = self.library.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Read a prompt from the beginning of a text; return the logits after it."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        for begin in range(0, len(tokens), BATCH):
            self.feed(tokens[begin : begin + BATCH])
        return self.logits()

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Go on token by token; return the logits after the last."""
        for token in tokens:
            self.feed([token])
        return self.logits()


if __name__ == "__main__":
    loaded(Path(sys.argv[1]), int(sys.argv[2]), repacked=True).prefill([0, 1])
