"""The figures of the peers as CSV, as a table in Markdown, and as a picture."""

from __future__ import annotations

import csv
import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

Rows = list[dict[str, Any]]
JOBS = {"decode": "decode", "prefill": "prompt of {tokens}", "batch": "decode, {tokens} texts at once"}


def one(rows: Rows, **wanted: Any) -> dict[str, Any] | None:
    """Return the row with these values, if there is one."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def share(row: dict[str, Any], rows: Rows) -> str:
    """Say what our rate is of the machine's own: of reading memory, or of a matrix product."""
    if row["job"] == "decode":
        return f"{1e-9 * row['bytes_per_token'] * row['tokens_per_s'] / row['read']:.0%} of reading"
    if row["job"] == "prefill":
        operations = 2 * (row["layers"] + row["head"] / row["tokens"])  # only the last token's logits are computed
        return f"{1e-9 * operations * row['tokens_per_s'] / row['sgemm']:.0%} of sgemm"
    single = one(rows, size=row["size"], format=row["format"], peer="wkvnp", job="decode")
    return f"{row['tokens_per_s'] / single['tokens_per_s']:.1f} times one by one" if single else ""


def cell(row: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    """Return a peer's rate, and how many times ours is as fast."""
    if row is None:
        return ""
    return f"{row['tokens_per_s']:.1f} ({ours['tokens_per_s'] / row['tokens_per_s']:.2f})"


def version(package: str) -> str:
    """Return the name and version of what a package was installed from."""
    name = importlib.metadata.packages_distributions().get(package, [package])[0]
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:  # a source tree
        return f"{name} {importlib.import_module(package).__version__}"


def table(rows: Rows, peers: dict[str, ModuleType]) -> str:
    """Return the figures in Markdown: tokens per second, in parentheses how many times as fast wkvnp is."""
    others = [name for name in peers if name != "wkvnp" and one(rows, peer=name)]
    head = ["job", "format", "wkvnp", "share of the machine", *(peers[name].TITLE for name in others)]
    parts = []
    for size in dict.fromkeys(row["size"] for row in rows):
        lines = [f"| {' | '.join(head)} |", f"|---|---|---:|---:|{'---:|' * len(others)}"]
        mine = [row for row in rows if row["size"] == size]
        for job, title in JOBS.items():
            for ours in (row for row in mine if row["job"] == job and row["peer"] == "wkvnp"):
                cells = [title.format(**ours), ours["format"], f"{ours['tokens_per_s']:.1f}", share(ours, rows)]
                same = {"size": size, "job": job, "format": ours["format"]}
                cells += [cell(one(rows, peer=name, **same), ours) for name in others]
                lines.append(f"| {' | '.join(cells)} |")
        forms = {row["format"]: row for row in mine}
        ceilings = ", ".join(f"{row['read']:.1f} GB/s and {row['sgemm']:.0f} GFLOP/s ({f})" for f, row in forms.items())
        layers, width = size.split("x")
        note = (
            f"{layers} layers of {width}, {mine[0]['threads']} threads, medians of {mine[0]['rounds']} rounds in turn; "
            "tokens per second, in parentheses how many times as fast wkvnp is. In the same rounds memory was read, "
            f"and a float32 matrix product ran, at {ceilings}."
        )
        parts += ["\n".join(lines), note]
    parts.append(differences(rows, peers, others))
    return "\n\n".join(parts) + "\n"


def differences(rows: Rows, peers: dict[str, ModuleType], others: list[str]) -> str:
    """Return the table of the differences of logits from ours in float32, and the versions compared."""
    forms = list(dict.fromkeys(row["format"] for row in rows))
    lines = ["| largest difference of logits | " + " | ".join(forms) + " |", "|---|" + "---:|" * len(forms)]
    for name in ["wkvnp", *others]:
        found = [[row["difference"] for row in rows if (row["peer"], row["format"]) == (name, form)] for form in forms]
        cells = [f"{max(values):.0e}" if values else "" for values in found]
        versions = ", ".join(version(package) for package in peers[name].PACKAGES)
        lines.append(f"| {peers[name].TITLE} ({versions}) | {' | '.join(cells)} |")
    note = (
        "As a share of the largest logit, from what wkvnp computes in float32 from the same file. wkvnp rounds to int8 "
        "and int4 as it loads a file of bfloat16, so there its own differences are those of the weights, too."
    )
    return "\n".join(lines) + f"\n\n{note}"


def draw(rows: Rows, peers: dict[str, ModuleType], path: Path) -> None:
    """Draw the rates of decoding and of prompts, for every size and format."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "wkvnp"
    import matplotlib.pyplot as plt

    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure, grid = plt.subplots(len(sizes), 2, figsize=(9, 3.2 * len(sizes)), layout="constrained", squeeze=False)
    for panels, size in zip(grid, sizes, strict=True):
        for panel, job in zip(panels, ("decode", "prefill"), strict=True):
            mine = [row for row in rows if (row["size"], row["job"]) == (size, job)]
            forms = list(dict.fromkeys(row["format"] for row in mine))
            names = [name for name in peers if one(mine, peer=name)]
            for n, name in enumerate(names):
                found = [
                    (f, row["tokens_per_s"])
                    for f, form in enumerate(forms)
                    if (row := one(mine, peer=name, format=form))
                ]
                panel.bar([f + 0.2 * n for f, _ in found], [rate for _, rate in found], 0.18, label=peers[name].TITLE)
            panel.set_xticks([f + 0.1 * (len(names) - 1) for f in range(len(forms))], forms)
            panel.set(title=f"{size}, {'decode' if job == 'decode' else 'prompt'}", ylabel="tokens per second")
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def write_results(rows: Rows, peers: dict[str, ModuleType], folder: Path) -> None:
    """Write figures, table and picture into a folder."""
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "peers.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "peers.md").write_text(table(rows, peers), encoding="utf-8")
    try:
        draw(rows, peers, folder / "peers.svg")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
