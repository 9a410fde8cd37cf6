"""The Python on the pages for readers runs as it stands there, on a tiny random model under the name of a real one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import wkvnp
from wkvnp.mechanisms.rwkv7 import SPEC

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    *(
        f"docs/guide/{name}.md"
        for name in ("checkpoints", "models", "states", "analysis", "ai-is-cool", "first-call", "speed", "quantisation")
    ),
    "docs/index.md",
]
CHECKPOINT = "RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth"
SIZES = {"B": 2, "T": 5, "H": 3, "K": 4, "V": 6}


def write_folder(folder: Path) -> None:
    """Make a Hugging Face folder with a tiny Transformer and a vocabulary of all bytes."""
    tokenizers = pytest.importorskip("tokenizers", reason="a page reads a tokenizer.json")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = tokenizers.Tokenizer(tokenizers.models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    folder.mkdir()
    words.save(str(folder / "tokenizer.json"))
    wkvnp.random_model("transformer", n_layer=2, n_embd=64, vocab_size=256, rng=0).save(folder / "model.safetensors")


@pytest.mark.parametrize("page", PAGES)
def test_the_python_on_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wkvnp.random_model("rwkv7", n_layer=2, n_embd=64, vocab_size=256, rng=0).save(CHECKPOINT)
    if "Qwen3-0.6B" in (ROOT / page).read_text(encoding="utf-8"):
        write_folder(tmp_path / "Qwen3-0.6B")
    arrays = SPEC.draw(np.random.default_rng(0), SIZES, "float32")
    names: dict[str, object] = {"wkvnp": wkvnp, **arrays, **{f"{name}2": array for name, array in arrays.items()}}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
        for shape, expression in re.findall(r"^(\S.*\.shape) +# (\(.*\))$", block, flags=re.MULTILINE):
            assert str(eval(shape, names)) == expression
        for expression, value in re.findall(r"^(\S.*[\])])  # (True|-?[\d.]+|\[.*\])$", block, flags=re.MULTILINE):
            assert str(eval(expression, names)) == value, expression
