"""The table of layers in CONTRIBUTING, made from the import contracts: ``python docs/layers.py`` writes it."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- layers: python docs/layers.py -->\n", "<!-- end of layers -->\n"


def table() -> str:
    """Return the table: a row a layer, the highest first, with the first sentence of every package."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    rows = ["| layer | holds |", "|---|---|"]
    for layer in layers:
        if layer.startswith("_"):
            rows.append(
                "| files that begin with `_`, `errors` | What all others use. They import NumPy, Numba, each other. |"
            )
        elif not layer.startswith("("):
            names = [name.strip() for name in layer.split("|")]
            packages = ", ".join(f"`{name}`" for name in names)
            rows.append(f"| {packages} | {'<br>'.join(map(_first_sentence, names))} |")
    return "\n".join(rows) + "\n"


def _first_sentence(package: str) -> str:
    folder = ROOT / "wkvnp" / package
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def page() -> str:
    """Return CONTRIBUTING with the table as it must be."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
