"""Measure the bundled models and write what the page shows: ``python report.py build``.

The folder is where `train.py` wrote one folder a model. The models themselves are read from where they are kept. Needs
PyTorch and matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import itertools
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import recurrences
import torch
from architectures import build
from compressors import COMPRESSORS, bits_per_byte
from corpus import corpus
from curves import EDGES, LIFTED, PAGE, draw_losses, draw_positions
from networks import Sizes
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from train import PRESETS

import wkvnp
from wkvnp.models import BUNDLED

TEST_DATA = PAGE.parents[1] / "tests" / "data"
ALL = {
    "RWKV-7 (bundled)": ("rwkv7", "large", BUNDLED, "rwkv7-large"),
    "RWKV-7": ("rwkv7", "small", TEST_DATA / "rwkv7.safetensors", "rwkv7"),
    "RWKV-6": ("rwkv6", "small", TEST_DATA / "rwkv6.safetensors", "rwkv6"),
    "RWKV-5.2": ("rwkv5.2", "small", TEST_DATA / "rwkv5.2.safetensors", "rwkv5.2"),
    "RWKV-4": ("rwkv4", "small", TEST_DATA / "rwkv4.safetensors", "rwkv4"),
    "Transformer": ("transformer", "small", TEST_DATA / "transformer.safetensors", "transformer"),
    "Hybrid": ("hybrid", "small", TEST_DATA / "hybrid.safetensors", "hybrid"),
    "Mamba-1": ("mamba1", "small", TEST_DATA / "mamba1.safetensors", "mamba1"),
    "Mamba-2": ("mamba2", "small", TEST_DATA / "mamba2.safetensors", "mamba2"),
}
"""Name -> architecture, preset, file, folder of the training."""

MODELS = {name: entry for name, entry in ALL.items() if entry[2].exists()}

CHECKED = 1000
"""Bytes on which wkvnp and the training framework are compared: more than a window."""

GREEDY_PROMPT = "Return a list of"
PASSAGE = """The with statement opens a file and closes it again, whatever happens in between. A loop that
reads a file line by line needs no index: each line is a string that ends with a newline. If the file does not exist,
the built-in function open() raises FileNotFoundError.
"""
"""Written for the tests; in no document of the corpus."""

PROMPTS = (
    "The for statement",
    "Return the number of",
    "This module provides",
    "class Queue:\n    ",
    "If the optional argument",
    "The with statement",
    "Raises ValueError if",
    "def read(self, size=-1):\n    ",
    "An exception is raised when",
    "The import system",
    "Generator expressions",
    "Dictionaries are",
    "Open the file and",
    "A thread is",
    "String literals",
    "Note that this function",
    "The return value is",
    "Called when the connection",
    "An instance of a class",
    "The following example shows",
)


def tokens_of(text: bytes) -> np.ndarray:
    """Return bytes as token ids."""
    return np.frombuffer(text, np.uint8).astype(np.int32)


def surprise(logits: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Return the bits of every following byte."""
    top = logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits - top, following[..., None], -1)[..., 0]
    return (np.log(np.exp(logits - top).sum(-1)) - chosen) / np.log(2)


README = """# Small models that were really trained

Byte-level language models, in bfloat16 under the tensor names of the original checkpoints, trained with the recipe in
`docs/bundled-models` on what Python's standard library says about itself (Python Software Foundation License). All had
the same text and the same number of steps. Where tensors do not say how a model is made, the metadata of its file does:
`architecture`, and in `config` the fields of a Hugging Face `config.json`. `expected.json` holds what the training
framework says that they write and how they score, in float64; `docs/bundled-models/report.py` wrote it and this page.

{table}
"""


class Witness:
    """A bundled model in the training framework, in float64: logits of whole sequences from the beginning."""

    def __init__(self, architecture: str, sizes: Sizes, path: Path) -> None:
        torch.set_default_dtype(torch.float64)
        recurrences.SLOWEST_TO_MATTER = -80.0  # as far as float64 reaches
        self.network = build(architecture, sizes)
        self.network.load_state_dict({name: tensor.double() for name, tensor in load_file(path).items()})

    @torch.no_grad()
    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after every token; the parallel forms want whole chunks, so some are added and cut off."""
        padded = np.pad(tokens, (0, -len(tokens) % 64)).astype(np.int64)
        logits, _ = self.network(torch.from_numpy(padded)[None], self.network.start(1))
        return logits[0, : len(tokens)].numpy()

    def greedy(self, prompt: bytes, steps: int) -> str:
        """Return what it writes on from a prompt when it always takes the most probable byte."""
        text = prompt
        for _ in range(steps):
            text += bytes([int(self.logits(tokens_of(text))[-1].argmax())])
        return text[len(prompt) :].decode("utf-8", "replace")

    def against(self, path: Path, text: bytes) -> dict[str, float]:
        """Compare logits and bits per byte of the first bytes with those of wkvnp in float32."""
        tokens = tokens_of(text[:CHECKED])
        theirs = self.logits(tokens)
        ours, _ = wkvnp.load(path, dtype="float32")(tokens, logits="all")
        return {
            "largest_logit_difference": float(np.abs(ours - theirs).max()),
            "wkvnp_bits_per_byte": float(surprise(ours[:-1], tokens[1:]).mean()),
            "training_bits_per_byte": float(surprise(theirs[:-1], tokens[1:]).mean()),
        }

    def expected(self) -> dict[str, Any]:
        """Return what the tests hold fixed: greedy text, and the score of a passage."""
        tokens = tokens_of(PASSAGE.encode())
        bits = surprise(self.logits(tokens)[:-1], tokens[1:])
        return {"greedy": self.greedy(GREEDY_PROMPT.encode(), 200), "nats": float(bits.sum() * np.log(2))}


def by_position(model: Any, text: bytes) -> list[float]:
    """Return bits per byte between the edges."""
    short = surprise_of_texts(model, text, 1024, 256)
    long = surprise_of_texts(model, text, EDGES[-1], 4096)
    return [float((short if end <= len(short) else long)[begin:end].mean()) for begin, end in itertools.pairwise(EDGES)]


def surprise_of_texts(model: Any, text: bytes, length: int, stride: int) -> np.ndarray:
    """Return the mean bits at each position of texts that begin every `stride` bytes, around the end if need be."""
    tokens = tokens_of(text + text[: length + 1])
    starts, total = range(0, len(text), stride), np.zeros(length)
    for first in range(0, len(starts), 16):
        rows = np.stack([tokens[start : start + length + 1] for start in starts[first : first + 16]])
        state = None
        for begin in range(0, length, 512):
            logits, state = model(rows[:, begin : begin + 512], state, logits="all")
            total[begin : begin + 512] += surprise(logits, rows[:, begin + 1 : begin + 513]).sum(0)
    return total / len(starts)


def write_samples(model: Any, tokenizer: Any) -> None:
    """Let the bundled model write on from every prompt; nothing is chosen or edited."""
    parts = []
    for seed, prompt in enumerate(PROMPTS):
        options = {"max_tokens": 300, "temperature": 0.7, "top_p": 0.9, "rng": seed}
        text = "".join(piece.text for piece in wkvnp.generate(model, tokenizer, prompt, **options))
        parts.append(f"--- seed {seed}, prompt {prompt!r}\n{prompt}{text}\n")
    (PAGE / "samples.txt").write_text("\n".join(parts), encoding="utf-8")
    (PAGE / "samples-5.txt").write_text("\n".join(parts[:5]), encoding="utf-8")


def measure(architecture: str, preset: str, path: Path, held_out: bytes) -> dict[str, Any]:
    """Return all that can be said about one model."""
    model, witness = wkvnp.load(path, dtype="float32"), Witness(architecture, PRESETS[preset][architecture], path)
    figures = {
        "parameters": sum(tensor.numel() for tensor in load_file(path).values()),
        "file_bytes": path.stat().st_size,
        "held_out_bits_per_byte": wkvnp.score(model, wkvnp.load_tokenizer("bytes"), held_out.decode()).bits_per_byte,
    }
    figures |= witness.against(path, held_out)
    return {"figures": figures, "by_position": by_position(model, held_out), "expected": witness.expected()}


def measure_lifted(path: Path, copy: Path, held_out: bytes) -> dict[str, Any]:
    """Write the transformer once more without its window, and return by position how it does then."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"]) | {"sliding_window": None}
    save_file(load_file(path), copy, metadata=metadata | {"config": json.dumps(config)})
    witness = Witness("transformer", replace(PRESETS["small"]["transformer"], window=CHECKED), copy)
    model = wkvnp.load(copy, dtype="float32")
    return {"figures": witness.against(copy, held_out), "by_position": by_position(model, held_out)}


def once(kept: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept, or compute and keep it: an interrupted report goes on with the next model."""
    if not kept.exists():
        kept.write_text(json.dumps(compute()))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def write_tables(results: dict[str, Any]) -> None:
    """Write the tables of the page, and the one beside the test models."""
    places = " | ".join(f"{EDGES[n]:,} to {EDGES[n + 1]:,}" for n in (0, 4, len(EDGES) - 2))
    lines = [
        f"| model | parameters | file, bytes | bits per byte, held out | {places} |",
        "|---|---|---|---|---|---|---|",
    ]
    lines.extend(
        f"| {name} | {r['parameters']:,} | {r['file_bytes']:,} | {r['held_out_bits_per_byte']:.4f} | "
        f"{r['by_position'][0]:.3f} | {r['by_position'][4]:.3f} | {r['by_position'][-1]:.3f} |"
        for name, r in results["models"].items()
    )
    if lifted := results.get("lifted"):
        by = lifted["by_position"]
        lines.append(f"| {LIFTED} | | | | {by[0]:.3f} | {by[4]:.3f} | {by[-1]:.3f} |")
    lines += [f"| {name} | | | {bits:.4f} | | | |" for name, bits in results["compressors"].items()]
    table = "\n".join(lines) + "\n"
    (PAGE / "table.md").write_text(table, encoding="utf-8")
    own = [line for line in lines if "bundled" not in line and "| | |" not in line]
    (TEST_DATA / "README.md").write_text(README.format(table="\n".join(own)), encoding="utf-8")
    checks = [
        "| model | largest difference of a logit | bits per byte, wkvnp | bits per byte, PyTorch |",
        "|---|---|---|---|",
    ]
    compared = results["models"] | ({LIFTED: lifted} if lifted else {})
    for name, r in compared.items():
        ours, theirs = (f"{r[key]:.4f}" for key in ("wkvnp_bits_per_byte", "training_bits_per_byte"))
        checks.append(f"| {name} | {r['largest_logit_difference']:.1e} | {ours} | {theirs} |")
    (PAGE / "checks.md").write_text("\n".join(checks) + "\n", encoding="utf-8")


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    wkvnp.set_num_threads(1)  # these models are small
    texts = corpus()
    held_out = texts.text(texts.held_out)
    results: dict[str, Any] = {
        "python": platform.python_version(),
        "train": {
            "documents": len(texts.train),
            "bytes": len(texts.text(texts.train)),
            "sha256": texts.digest(texts.train),
        },
        "held_out": {"documents": len(texts.held_out), "bytes": len(held_out), "sha256": texts.digest(texts.held_out)},
        "compressors": {name: bits_per_byte(name, held_out) for name in COMPRESSORS},
        "models": {},
    }
    curves: dict[str, list[float]] = {}
    expected: dict[str, Any] = {"prompt": GREEDY_PROMPT, "passage": PASSAGE}
    for name, (architecture, preset, path, run) in MODELS.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = folder / run / f"measured-{digest[:12]}.json"
        measured = once(kept, functools.partial(measure, architecture, preset, path, held_out))
        with open(folder / run / "loss.csv", newline="") as file:
            last = list(csv.DictReader(file))[-1]
        trained = {"steps": int(last["step"]), "training_seconds": float(last["seconds"]), "sha256": digest}
        curves[name], expected[path.name] = measured["by_position"], measured["expected"]
        results["models"][name] = trained | measured["figures"] | {"by_position": measured["by_position"]}
        print(name, results["models"][name], flush=True)
        if architecture == "transformer":
            kept, copy = folder / run / f"lifted-{digest[:12]}.json", folder / run / "lifted.safetensors"
            measured = once(kept, functools.partial(measure_lifted, path, copy, held_out))
            curves[LIFTED] = measured["by_position"]
            results["lifted"] = measured["figures"] | {"by_position": measured["by_position"]}
    (PAGE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (TEST_DATA / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    write_tables(results)
    for _, _, _, run in MODELS.values():
        shutil.copy(folder / run / "loss.csv", PAGE / f"loss-{run}.csv")
    draw_losses({name: PAGE / f"loss-{run}.csv" for name, (_, _, _, run) in MODELS.items()})
    draw_positions(curves)
    write_samples(wkvnp.load(), wkvnp.load_tokenizer("bytes"))


if __name__ == "__main__":
    main()
