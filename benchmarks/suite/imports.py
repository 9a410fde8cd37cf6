"""What a newcomer waits for: the import, and the first result in a fresh process."""

from __future__ import annotations


class Start:
    """Time in a new Python process."""

    timeout = 300

    def timeraw_import(self) -> str:
        return "import wkvnp"

    def timeraw_import_numpy_alone(self) -> str:
        """The floor under the figure above: wkvnp cannot start faster than NumPy."""
        return "import numpy"

    def timeraw_command_line_help(self) -> str:
        return (
            "import contextlib, io, wkvnp.cli\n"
            "with contextlib.redirect_stdout(io.StringIO()):\n"
            "    wkvnp.cli.main(['--help'])"
        )

    def timeraw_first_logits(self) -> str:
        """A random tiny RWKV-7, one token, with whatever the compile cache holds by then."""
        return (
            "import wkvnp\n"
            "model = wkvnp.random_model('rwkv7', n_layer=2, n_embd=128, vocab_size=256, rng=0)\n"
            "model([72, 101, 108, 108, 111])"
        )
