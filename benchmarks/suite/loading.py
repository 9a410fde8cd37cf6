"""From a file on disk to a model, and to its first logits."""

from __future__ import annotations

import tempfile
from pathlib import Path

import wkvnp
from wkvnp.errors import ArgumentError

from .models import drawn


class Load:
    """An RWKV-7 of some 30 million parameters, stored in one dtype and loaded in another; the disk is warm."""

    params = (["float32", "bfloat16"], [None, "float32", "bfloat16", "int8", "int4"])
    param_names = ("stored", "loaded")
    timeout = 300

    def setup(self, stored: str, loaded: str | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "model.safetensors"
        drawn("rwkv7", stored).save(self.path)
        try:
            wkvnp.load(self.path, dtype=loaded)([1])
        except ArgumentError as error:  # a dtype that this version does not have
            self.folder.cleanup()
            raise NotImplementedError(str(error)) from None

    def teardown(self, stored: str, loaded: str | None) -> None:
        self.folder.cleanup()

    def time_load(self, stored: str, loaded: str | None) -> None:
        wkvnp.load(self.path, dtype=loaded)

    def time_load_and_first_logits(self, stored: str, loaded: str | None) -> None:
        wkvnp.load(self.path, dtype=loaded)([1])

    def peakmem_load_and_first_logits(self, stored: str, loaded: str | None) -> None:
        wkvnp.load(self.path, dtype=loaded)([1])
