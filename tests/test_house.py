"""The rules of the house that a machine can check: names, sizes, imports, docstrings, pages that must not go stale."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import wkvnp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wkvnp"
SOURCES = sorted(PACKAGE.rglob("*.py"))
KERNEL_FOLDERS = sorted(path.parent for path in PACKAGE.glob("kernels/*/__init__.py"))
PUBLIC_ROOMS = [
    "", ".checkpoints", ".tokenizers", ".generation", ".analysis", ".mechanisms.favor", ".mechanisms.random_blocks",
    ".primitives.router",
]  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

NAMES_THAT_SAY_NOTHING = {"utils", "util", "core", "common", "base", "helpers", "helper", "misc", "manager"}
RIVAL_CONFIG = [
    "setup.cfg",
    "setup.py",
    "tox.ini",
    "pytest.ini",
    "mypy.ini",
    "ruff.toml",
    ".importlinter",
    ".coveragerc",
]

FUNCTION_LINES, KERNEL_FUNCTION_LINES = 60, 100
FILE_LINES, MECHANISM_LINES, KERNEL_FILE_LINES = 350, 150, 200
KERNEL_FILES = {"cpu.py", "cuda.py"}


def inside(path: Path) -> str:
    """Return the path of a source file relative to the package, with forward slashes."""
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the absolute module names that these nodes import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def runs_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what Python executes when it imports a module: not function bodies, not TYPE_CHECKING blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from runs_at_import(child)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring, which is prose."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


# Files


def test_a_file_is_named_after_what_is_in_it() -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "docs"]
    bad = [path for folder in folders for path in folder.rglob("*") if path.stem in NAMES_THAT_SAY_NOTHING]
    assert not bad, f"name these after what is in them: {bad}"


def test_pyproject_is_the_only_configuration_file() -> None:
    assert [name for name in RIVAL_CONFIG if (ROOT / name).exists()] == []


@pytest.mark.parametrize("folder", KERNEL_FOLDERS, ids=lambda path: path.name)
def test_every_kernel_folder_holds_contract_oracle_and_loops(folder: Path) -> None:
    assert {"__init__.py", "oracle.py", "cpu.py"} <= {path.name for path in folder.iterdir()}


# Imports


def test_numba_is_imported_only_on_the_floor_and_where_loops_are() -> None:
    allowed = re.compile(r"_\w+\.py|kernels/.*|primitives/.*|fused/.*|decoding/.*")
    bad = [
        inside(path)
        for path in SOURCES
        if not allowed.fullmatch(inside(path)) and roots(imported(ast.walk(tree(path)))) & {"numba", "llvmlite"}
    ]
    assert bad == []


def test_numba_cuda_is_imported_only_in_files_called_cuda_and_on_the_floor() -> None:
    allowed = re.compile(r"_\w+\.py|.*/cuda\.py")
    bad = [
        inside(path)
        for path in SOURCES
        if not allowed.fullmatch(inside(path))
        and any(name.startswith("numba.cuda") for name in imported(ast.walk(tree(path))))
    ]
    assert bad == []


def test_what_runs_at_import_needs_only_the_core_dependencies() -> None:
    allowed = sys.stdlib_module_names | {"numpy", "numba", "llvmlite", "scipy", "wkvnp"}
    bad = {inside(path): extra for path in SOURCES if (extra := roots(imported(runs_at_import(tree(path)))) - allowed)}
    assert bad == {}, "an extra is imported inside the function that needs it"


def test_oracles_import_numpy_only() -> None:
    for path in PACKAGE.rglob("oracle.py"):
        module = tree(path)
        assert roots(imported(ast.walk(module))) <= {"__future__", "numpy"}, inside(path)
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(module)), inside(path)


def test_importing_wkvnp_brings_in_no_heavy_package() -> None:
    program = (
        "import sys\n"
        "import wkvnp, wkvnp.errors, wkvnp.checkpoints, wkvnp.cli\n"
        "heavy = {'numba', 'llvmlite', 'scipy', 'torch', 'tokenizers', 'matplotlib', 'huggingface_hub', 'tqdm'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.split() == []


def test_every_extra_that_an_error_names_exists() -> None:
    known = set(PROJECT["optional-dependencies"])
    calls = [(path, node) for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    for path, call in calls:
        if ast.unparse(call.func).endswith("MissingExtraError") and len(call.args) > 1:
            extra = call.args[1]
            assert not isinstance(extra, ast.Constant) or extra.value in known, f"{inside(path)}: {extra.value}"


NAMES_ON_IMPORT = {"cupy-cuda13x": "cupy"}
"""Distribution -> module, where the names differ by more than a hyphen."""


def test_every_extra_for_users_is_imported_somewhere() -> None:
    extras = PROJECT["optional-dependencies"]
    for_users = extras.keys() - {"all", "test", "lint", "docs", "bench"}
    used: set[str] = set()
    for path in SOURCES:
        nodes = list(ast.walk(tree(path)))
        used |= roots(imported(iter(nodes)))
        # Some are asked for by their name, without being run.
        used |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    packages = {extra: [re.split(r"[\[<>=!~; ]", each)[0] for each in extras[extra]] for extra in for_users}
    unused = {
        (extra, package)
        for extra, names in packages.items()
        for package in names
        if NAMES_ON_IMPORT.get(package, package.replace("-", "_")) not in used
    }
    assert unused == set(), "an extra is advertised when code uses it, not before"
    assert extras["all"] == [f"wkvnp[{','.join(extra for extra in extras if extra in for_users)}]"]


def test_the_table_of_layers_is_that_of_the_contracts() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "layers.py"))["page"]()
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") == made, "run: python docs/layers.py"


def test_the_reading_path_exists_and_is_short() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("### Where to begin reading\n")[1].split("\n#")[0]
    paths = re.findall(r"^\d+\. `([^`]+)`", section, flags=re.MULTILINE)
    missing = [path for path in paths if not (ROOT / path).is_file()]
    assert not missing, f"CONTRIBUTING.md, 'Where to begin reading': no such files: {missing}"
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths}
    assert len(lines) >= 5 and sum(lines.values()) <= 1500, f"shorten the list, or these files, to 1,500 lines: {lines}"


# Sizes


@pytest.mark.parametrize("path", SOURCES, ids=inside)
def test_files_and_functions_stay_short(path: Path) -> None:
    compiled = path.name in KERNEL_FILES
    folder = inside(path).partition("/")[0]
    door = folder == "mechanisms" and not path.name.startswith("_")
    limit = MECHANISM_LINES if door else KERNEL_FILE_LINES if compiled else FILE_LINES
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= limit, (
        f"{inside(path)} has {lines} lines of at most {limit}: move one of its ideas to a file of its own"
    )
    longest = KERNEL_FUNCTION_LINES if compiled else FUNCTION_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = code_lines(node)
            assert size <= longest, (
                f"{inside(path)}:{node.lineno}: {node.name} has {size} of at most {longest} lines without docstring; "
                "make a part of it a function"
            )


# Public names


def speaks_for_itself(thing: object) -> bool:
    """Whether a public name needs no example: exceptions, protocols, and records that a documented function returns."""
    if not inspect.isclass(thing):
        return False
    return (
        issubclass(thing, (Exception, tuple))
        or getattr(thing, "_is_protocol", False)
        or dataclasses.is_dataclass(thing)
    )


@pytest.mark.parametrize("room", PUBLIC_ROOMS)
def test_public_names_are_documented_with_an_example(room: str) -> None:
    module = importlib.import_module(f"wkvnp{room}")
    things = {name: getattr(module, name) for name in module.__all__}
    spoken = {name: thing for name, thing in things.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    assert [name for name, thing in spoken.items() if not inspect.getdoc(thing)] == []
    shown = {name: thing for name, thing in spoken.items() if not speaks_for_itself(thing)}
    assert [name for name, thing in shown.items() if ">>> " not in str(inspect.getdoc(thing))] == [], "without example"


def test_public_functions_say_what_goes_in_and_what_comes_out() -> None:
    functions = {name: thing for name in wkvnp.__all__ if inspect.isfunction(thing := getattr(wkvnp, name))}
    for name, function in functions.items():
        text = inspect.getdoc(function) or ""
        assert "\nParameters\n----------" in text, name
        described = re.findall(r"^(\*{,2}\w[\w, ]*?) :", text, flags=re.MULTILINE)
        named = {part.strip(" *") for line in described for part in line.split(",")}
        assert set(inspect.signature(function).parameters) <= named, f"{name} leaves a parameter undescribed"


def test_the_package_lists_what_it_exports() -> None:
    assert set(wkvnp.__all__) <= set(dir(wkvnp))


def test_unknown_names_are_refused_like_anywhere_else() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        wkvnp.no_such_name  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'init'; it is called random_model now"):
        wkvnp.init  # noqa: B018


# Pages that must not go stale


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert wkvnp.__version__ == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def commands_in(page: Path) -> set[str]:
    """Return the wkvnp subcommands that the shell blocks of a page use."""
    blocks = re.findall(r"```(?:bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return set(re.findall(r"(?:^|[;&|] *|\$ )wkvnp ([a-z-]+)", "\n".join(blocks), flags=re.MULTILINE))


def test_the_pages_use_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    cli = importlib.import_module("wkvnp.cli")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("guide/*.md")]
    used = set().union(*map(commands_in, pages))
    assert {"generate", "info"} <= used
    assert used <= set(cli.COMMANDS)
    for command in cli.COMMANDS:
        assert cli.main([command, "--help"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("page", ["README.md", "docs/guide/command-line.md"])
def test_the_pages_show_every_command(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for command in importlib.import_module("wkvnp.cli").COMMANDS:
        assert f"| `wkvnp {command}`" in text or f"## {command}\n" in text, command


MECHANISMS = importlib.import_module("wkvnp.mechanisms").NAMES


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_a_mechanism_needs_beside_its_file(name: str) -> None:
    def text(path: str) -> str:
        return (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""

    typed, row = f"    from .mechanisms.{name} import {name}\n", f"| [`{name}`]({name}.md) |"
    assert text(f"docs/mechanisms/{name}.md"), f"write docs/mechanisms/{name}.md"
    index = text("docs/mechanisms/index.md")
    assert row in index and f"\n{name}\n" in index, f"docs/mechanisms/index.md: add a row {row} and a line {name}"
    assert f"`{name}`" in text("README.md"), f"README.md: name `{name}` in the table of families"
    home = f'    "{name}": ".mechanisms.{name}",\n'
    assert home in text("wkvnp/__init__.py"), f"wkvnp/__init__.py: add to _HOMES: {home.strip()}"
    assert typed in text("wkvnp/__init__.py"), f"wkvnp/__init__.py: add under TYPE_CHECKING: {typed.strip()}"


def test_every_page_of_a_mechanism_has_its_mechanism() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "mechanisms").glob("*.md")} - {"index"}
    odd = pages - set(MECHANISMS)
    assert not odd, f"docs/mechanisms: pages without a file in wkvnp/mechanisms: {odd}"


def test_every_architecture_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for number in ("4", "5.0", "5.1", "5.2", "6", "7"):
        assert re.search(rf"RWKV-{re.escape(number)}\b|[ ,]{re.escape(number)}[ ,]", text), number


def test_every_extra_is_in_the_guide() -> None:
    text = (ROOT / "docs" / "guide" / "install.md").read_text(encoding="utf-8")
    table = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in table] == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
