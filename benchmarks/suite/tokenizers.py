"""Text to tokens and back, of a text that is everywhere: modules of Python itself."""

from __future__ import annotations

import inspect
from importlib import import_module

import wkvnp
from wkvnp.errors import WkvnpError

MODULES = ("argparse", "ast", "datetime", "decimal", "inspect", "pathlib", "subprocess", "typing", "zipfile")


class Tokenizer:
    """Some 800 kB, and one sentence."""

    params = (["bytes", "rwkv-world"], ["sentence", "modules"])
    param_names = ("tokenizer", "text")
    timeout = 120

    def setup(self, tokenizer: str, text: str) -> None:
        try:
            self.tokenizer = wkvnp.load_tokenizer(tokenizer)
        except (WkvnpError, ImportError) as error:  # an extra brings the vocabulary
            raise NotImplementedError(str(error)) from None
        sources = "".join(inspect.getsource(import_module(name)) for name in MODULES)
        self.text = sources if text == "modules" else "A list is a sequence of items."
        self.ids = self.tokenizer.encode(self.text)

    def time_encode(self, tokenizer: str, text: str) -> None:
        self.tokenizer.encode(self.text)

    def time_decode(self, tokenizer: str, text: str) -> None:
        self.tokenizer.decode(self.ids)


class Vocabulary:
    """Loading one."""

    timeout = 120

    def setup(self) -> None:
        try:
            self.time_load_rwkv_world()
        except (WkvnpError, ImportError) as error:
            raise NotImplementedError(str(error)) from None

    def time_load_rwkv_world(self) -> None:
        wkvnp.load_tokenizer("rwkv-world")
