"""Draw the curves of the page."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from train import BATCH, CONTEXT

mpl.rcParams["svg.hashsalt"] = "wkvnp"
PAGE = Path(__file__).parent

LIFTED = "Transformer, window lifted"
"""The same trained tensors, but a query sees all that came before it, at distances that training never showed it."""

LINES = {
    "RWKV-7 (bundled)": ("#54278f", "--"),
    "RWKV-7": ("#54278f", "-"),
    "RWKV-6": ("#807dba", "-"),
    "RWKV-5.2": ("#807dba", ":"),
    "RWKV-4": ("#807dba", "-."),
    "Transformer": ("#d7301f", "-"),
    LIFTED: ("#d7301f", "--"),
    "Hybrid": ("#238b45", "-"),
    "Mamba-1": ("#e6a100", "-"),
    "Mamba-2": ("#1f78b4", "-"),
}
"""Colour and stroke of a curve: one colour a family."""

EDGES = (0, 256, 512, 768, 1024, 4096, 8192, 12288, 16384)
"""Positions between which bits are averaged. Short texts begin every 256 bytes of the held-out part and long ones every
4,096, so that nearly every average is one over the whole of it, and curves show position, not content."""


def draw_losses(files: dict[str, Path]) -> None:
    """Draw what trainings wrote, by the names of the models."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    million = BATCH * CONTEXT / 1e6
    for name, path in files.items():
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        color, stroke = LINES[name]
        read = [million * int(row["step"]) for row in rows]
        axes.plot(read, [float(row["bits_per_byte"]) for row in rows], lw=0.6, alpha=0.3, color=color)
        kept = [row for row in rows if row["held_out_bits_per_byte"]]
        read = [million * int(row["step"]) for row in kept]
        bits = [float(row["held_out_bits_per_byte"]) for row in kept]
        axes.plot(read, bits, "o", ls=stroke, ms=3, lw=1.2, color=color, label=name)
    axes.set(xlabel="million bytes read", ylabel="bits per byte", ylim=(1.25, 2.6))
    axes.legend(frameon=False, title="held out; faint: while training")
    figure.savefig(PAGE / "loss.svg")


def write_positions(curves: dict[str, list[float]]) -> None:
    """Write bits per byte by position."""
    with open(PAGE / "positions.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["from", "to", *curves])
        for n, values in enumerate(zip(*curves.values(), strict=True)):
            writer.writerow([EDGES[n], EDGES[n + 1], *(f"{value:.4f}" for value in values)])


def draw_positions(curves: dict[str, list[float]]) -> None:
    """Write and draw bits per byte by position."""
    write_positions(curves)
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 8), sharex=True, height_ratios=(2, 1), layout="constrained")
    for name in sorted(curves, key=lambda name: -curves[name][-1]):  # the legend in the order of the curves
        color, stroke = LINES[name]
        for axes in (upper,) * (name != LIFTED) + (lower,) * (name in (LIFTED, "Transformer")):
            axes.stairs(curves[name], np.maximum(EDGES, 64), baseline=None, lw=1.5, color=color, ls=stroke, label=name)
    for axes in (upper, lower):
        axes.axvline(CONTEXT, color="gray", ls=":", lw=1)
        axes.set(xscale="log", ylabel="bits per byte")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    lower.set(xlabel="position in the text, bytes")
    figure.savefig(PAGE / "positions.svg")
