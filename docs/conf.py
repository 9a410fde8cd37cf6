"""Sphinx settings. The docstring checks come from pyproject.toml, the pages of the command line from its parser."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
PYPROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))

project = "wkvnp"
author = copyright = "The wkvnp developers"
release = version = PYPROJECT["project"]["version"]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = [
    "_build",
    "_templates",
    "generated/commands",
    "bundled-models/table.md",
    "bundled-models/checks.md",
    "guide/architectures.md",
    "guide/mechanism-table.md",
    "guide/quantisation-table.md",
    "guide/peers/*.md",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_validation_checks = set(PYPROJECT["tool"]["numpydoc_validation"]["checks"])
numpydoc_validation_exclude = set(PYPROJECT["tool"]["numpydoc_validation"]["exclude"])

html_theme = "pydata_sphinx_theme"
html_title = "wkvnp"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}

API = [
    "wkvnp", "wkvnp.states", "wkvnp.checkpoints", "wkvnp.tokenizers", "wkvnp.generation", "wkvnp.analysis",
    "wkvnp.mechanisms.favor", "wkvnp.mechanisms.random_blocks", "wkvnp.primitives.router",
]  # fmt: skip


def help_text(command: str) -> str:
    """Return what ``wkvnp COMMAND --help`` prints."""
    cli = importlib.import_module("wkvnp.cli")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main([*([command] if command else []), "--help"])
    if status != 0:
        raise RuntimeError(f"wkvnp {command} --help ended with {status}")
    return printed.getvalue()


def write_generated_pages() -> None:
    """Write the pages that are made from the package, so that they cannot say something else than it does."""
    os.environ.update(COLUMNS="96", NO_COLOR="1", PYTHON_COLORS="0")
    generated = HERE / "generated"
    (generated / "commands").mkdir(parents=True, exist_ok=True)
    for command in ("", *importlib.import_module("wkvnp.cli").COMMANDS):
        name = f"wkvnp {command}".strip()
        (generated / "commands" / f"{command or 'wkvnp'}.txt").write_text(
            f"$ {name} --help\n{help_text(command)}", encoding="utf-8"
        )
    elsewhere = {"__version__", *importlib.import_module("wkvnp.mechanisms").NAMES}  # mechanisms have their own pages
    lines = ["# Reference", "", "The mechanisms are described [on pages of their own](../mechanisms/index.md).", ""]
    for module in API:
        names = [name for name in importlib.import_module(module).__all__ if name not in elsewhere]
        elsewhere.update(names)  # what the package itself exports is not listed again under its module
        lines += [f"## {module}", "", "```{eval-rst}", f".. currentmodule:: {module}", "", ".. autosummary::"]
        lines += ["   :toctree: api", "   :nosignatures:", "", *(f"   {name}" for name in names), "```", ""]
    (generated / "reference.md").write_text("\n".join(lines), encoding="utf-8")


write_generated_pages()
