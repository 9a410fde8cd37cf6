"""Train one of the bundled models: ``python train.py rwkv7 build/rwkv7 --preset large``.

The folder receives ``model.safetensors`` (bfloat16, original tensor names), ``loss.csv`` and, every few minutes,
``last.pt``, from which an interrupted run goes on when the same command is given again. Needs PyTorch, safetensors and
a C++ compiler; takes about an hour on one core of 2024.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from architectures import COMPILED, build, config_of
from corpus import Corpus, corpus
from networks import Sizes
from torch import Tensor, nn

BATCH, CONTEXT, FORGET = 8, 512, 0.2
"""Lanes, bytes of a lane a step, and how often a lane forgets its state before a step."""

PRESETS = {
    "large": {"rwkv7": Sizes(5, 192, 64, 768, {"w": 24, "a": 24, "v": 16, "g": 48})},
    "small": {
        "rwkv4": Sizes(6, 128, 128, 512, {}),
        "rwkv5.2": Sizes(6, 128, 64, 448, {}),
        "rwkv6": Sizes(6, 128, 64, 416, {"mix": 8, "decay": 16}),
        "rwkv7": Sizes(6, 128, 64, 544, {"w": 16, "a": 16, "v": 16, "g": 32}),
        "transformer": Sizes(6, 128, 32, 448, {}),
        "mamba1": Sizes(9, 144, 1, 288, {"dt": 9}, state=16),
        "mamba2": Sizes(9, 144, 32, 288, {}, state=64),
        "hybrid": Sizes(8, 128, 64, 304, {"w": 16, "a": 16, "v": 16, "g": 32}, pattern="arrr"),
    },
}


def map_tensors(function: Any, *trees: Any) -> Any:
    """Apply a function to the tensors of states."""
    if isinstance(trees[0], Tensor):
        return function(*trees)
    return type(trees[0])(map_tensors(function, *parts) for parts in zip(*trees, strict=True))


def segments(texts: dict[str, str], seed: int) -> Iterator[Tensor]:
    """Yield (BATCH, CONTEXT + 1) bytes for ever: each epoch shuffles the documents and cuts their row into lanes."""
    epoch, text = 0, Corpus({}, {}).text
    while True:
        names = sorted(texts)
        random.Random(1000 * seed + epoch).shuffle(names)
        row = torch.from_numpy(np.frombuffer(text({name: texts[name] for name in names}), np.uint8).astype(np.int64))
        lanes = row[: len(row) // BATCH * BATCH].view(BATCH, -1)
        for start in range(0, lanes.shape[1] - CONTEXT, CONTEXT):
            yield lanes[:, start : start + CONTEXT + 1]
        epoch += 1


def loss_of(network: nn.Module, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return the mean cross entropy of the next byte, and the state."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = network(tokens[:, :-1], state)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()), state


@torch.no_grad()
def held_out_loss(network: nn.Module, text: bytes) -> float:
    """Return bits per byte of the held-out text, cut into lanes through which the state is carried."""
    row = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))
    lanes = row[: len(row) // BATCH * BATCH].view(BATCH, -1)
    state, losses = network.start(BATCH), []
    for start in range(0, lanes.shape[1] - CONTEXT, CONTEXT):
        loss, state = loss_of(network, lanes[:, start : start + CONTEXT + 1], state)
        losses.append(loss.item())
    return sum(losses) / len(losses) / math.log(2)


def orthogonal(gradient: Tensor) -> Tensor:
    """Return nearly the nearest orthogonal matrix, by five Newton-Schulz steps (Jordan 2024, "Muon")."""
    X = gradient.bfloat16()
    if wide := X.shape[0] > X.shape[1]:
        X = X.T
    X = X / (X.norm() + 1e-7)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return (X.T if wide else X).float()


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for the matrices inside the blocks."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                direction = orthogonal(parameter.grad.lerp(momentum, group["momentum"]))
                size = math.sqrt(max(1, parameter.shape[0] / parameter.shape[1]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * size)


MATRICES = tuple(
    f"{name}.weight"
    for name in (
        *("receptance", "key", "value", "gate", "output"),
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        *("in_proj", "x_proj", "out_proj"),
    )
)
"""Names that only tensors of blocks have; the factors of low rank are left to Adam, as is ``dt_proj``."""


def optimizers_of(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, Adam for all other tensors."""
    matrices, factors, vectors = [], [], []
    for name, parameter in network.named_parameters():
        if name.endswith(MATRICES):
            matrices.append(parameter)
        elif parameter.squeeze().ndim >= 2 and not name.endswith(("r_k", "time_faaaa", "time_decay", "A_log")):
            factors.append(parameter)
        else:
            vectors.append(parameter)
    groups = [{"params": factors, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return [
        Muon(matrices, lr=rate, weight_decay=0.1),
        torch.optim.AdamW(groups, lr=rate * 0.15, betas=(0.9, 0.98), eps=1e-12, fused=True),
    ]


def schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate: a short rise, then down to nothing along a cosine."""
    return min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


class Run:
    """A training that can be interrupted: the network, its optimizers, where the text and the states stand."""

    def __init__(self, architecture: str, sizes: Sizes, folder: Path, steps: int, seed: int, rate: float) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        self.architecture, self.config = architecture, config_of(architecture, sizes)
        self.folder, self.steps, self.done, self.seconds = folder, steps, 0, 0.0
        self.network = build(architecture, sizes)
        self.optimizers = optimizers_of(self.network, rate)
        self.forget = torch.Generator().manual_seed(seed)
        self.state = self.network.start(BATCH)
        self.curve: list[tuple[int, float, float | str, float]] = []
        texts = corpus()
        self.held_out, self.source = texts.text(texts.held_out), segments(texts.train, seed)
        if (folder / "last.pt").exists():
            self.resume(torch.load(folder / "last.pt", weights_only=False))
        for module in self.network.modules():
            if isinstance(module, COMPILED):
                module.compile()

    def resume(self, last: dict[str, Any]) -> None:
        """Go back to where an earlier run was saved."""
        self.network.load_state_dict(last["network"])
        for optimizer, saved in zip(self.optimizers, last["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.state, self.done, self.seconds, self.curve = (last[key] for key in ("state", "step", "seconds", "curve"))
        self.forget.set_state(last["forget"])
        for _ in range(self.done):
            next(self.source)

    def save(self) -> None:
        """Write what `resume` needs, and the curve."""
        record = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "state": map_tensors(Tensor.detach, self.state),
            "step": self.done,
            "seconds": self.seconds,
            "curve": self.curve,
            "forget": self.forget.get_state(),
        }
        torch.save(record, self.folder / "last.part")
        (self.folder / "last.part").replace(self.folder / "last.pt")
        with open(self.folder / "loss.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "bits_per_byte", "held_out_bits_per_byte", "seconds"])
            for step, bits, held_out, seconds in self.curve:
                writer.writerow([step, f"{bits:.4f}", f"{held_out:.4f}" if held_out != "" else "", f"{seconds:.0f}"])

    def step(self) -> float:
        """Learn from the next segment and return its bits per byte."""
        fresh = torch.rand(BATCH, generator=self.forget) < FORGET

        def begin(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(fresh.view(-1, *[1] * (old.ndim - 1)), new, old.detach())

        state = map_tensors(begin, self.network.start(BATCH), self.state)
        loss, self.state = loss_of(self.network, next(self.source), state)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * schedule(self.done, self.steps)
            optimizer.step()
        self.network.zero_grad(set_to_none=True)
        self.done += 1
        return loss.item() / math.log(2)

    def finish(self) -> None:
        """Train to the end."""
        start, recent = time.monotonic() - self.seconds, []
        while self.done < self.steps:
            recent.append(self.step())
            last = self.done == self.steps
            if self.done % 50 == 0 or last:
                bits = held_out_loss(self.network, self.held_out) if self.done % 500 == 0 or last else ""
                self.seconds = time.monotonic() - start
                self.curve.append((self.done, sum(recent) / len(recent), bits, self.seconds))
                shown = f"{bits:.4f}" if bits != "" else "-"
                print(
                    f"step {self.done} of {self.steps}: {self.curve[-1][1]:.4f} bits per byte, held out {shown}, ",
                    end="",
                )
                print(f"{self.seconds:.0f} s", flush=True)
                recent = []
            if self.done % 250 == 0 or last:
                self.save()

    def write(self) -> None:
        """Write the model in 16 bits under its original names, and how it is made where the names do not say it."""
        from safetensors.torch import save_file

        tensors = {name: tensor.bfloat16().contiguous() for name, tensor in self.network.state_dict().items()}
        described = {"architecture": self.architecture, "config": json.dumps(self.config)} if self.config else None
        save_file(tensors, self.folder / "model.safetensors", metadata=described)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=PRESETS["small"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="small", help="how large")
    parser.add_argument("--steps", type=int, default=3000, help=f"of {BATCH} x {CONTEXT} bytes (default: 3000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of the matrices (default: 0.02)")
    given = parser.parse_args()
    if given.architecture not in PRESETS[given.preset]:
        parser.error(f"there is no {given.preset} {given.architecture}")
    sizes = PRESETS[given.preset][given.architecture]
    run = Run(given.architecture, sizes, given.folder, given.steps, given.seed, given.rate)
    print(f"{given.architecture}: {sum(p.numel() for p in run.network.parameters()):,} parameters", flush=True)
    run.finish()
    run.write()


if __name__ == "__main__":
    main()
