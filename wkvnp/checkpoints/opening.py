"""Recognise a checkpoint by its first bytes, or say what the file is instead."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .._paths import hub_hint, local_path
from ..errors import CheckpointError
from .ggmf import read_ggmf
from .gguf import read_gguf
from .mapped_file import Buffer, map_file, without_mark
from .quantised_tensors import joined
from .safetensors import HEADER_LIMIT, read_safetensors
from .shards import read_sharded
from .tensors import Container
from .torch_zip import read_torch_zip

_CONVERT = "not readable yet; convert the model to safetensors or take its .pth"
_RESAVE = "re-save it with a current torch.save, or convert it to safetensors"

# A pickled 0x1950a86a20f9469cfc6c.
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"

# First bytes of files that people mistake for checkpoints, and what to tell them.
_FOREIGN = (
    (b"ggmf", f"a ggmf file (rwkv.cpp) of a big-endian machine, {_CONVERT}"),
    (b"lmgg", f"a ggml file, {_CONVERT}"),
    (b"tjgg", f"a ggjt file, {_CONVERT}"),
    (_LEGACY_TORCH, f"a torch file from before version 1.6; {_RESAVE}"),
    (b"\x93NUMPY", "a single NumPy array (.npy), not a checkpoint"),
    (b"\x89HDF", "an HDF5 file, not a checkpoint"),
    (b"version https://git-lfs", "a Git LFS pointer: the text that stands for the file; fetch it with git lfs pull"),
    (b"1 '\\x00' 1", "a vocabulary of RWKV, not a model; give it as the tokenizer (--tokenizer)"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"(\xb5/\xfd", "compressed with zstd; unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
)


def open_checkpoint(path: str | os.PathLike[str]) -> Container:
    """Open a checkpoint file, a sharded checkpoint by its index, or a folder that holds one.

    The first bytes decide what a file is, never its name. Nothing in it is executed, and large files are mapped, not
    read.

    Parameters
    ----------
    path : path-like
        A ``.pth``, ``.safetensors``, ``.gguf`` or rwkv.cpp file, a ``.safetensors.index.json`` or ``.bin.index.json``,
        or a folder with ``model.safetensors``, ``model.safetensors.index.json`` or exactly one checkpoint.

    Returns
    -------
    Container
        Its tensors by name, with shapes; they are read on demand.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or of another kind; the message says which.

    Examples
    --------
    >>> open_checkpoint("no-such-file.pth")
    Traceback (most recent call last):
    wkvnp.errors.CheckpointError: no-such-file.pth: no such file
    """
    path = local_path(path)
    if os.path.isdir(path):  # Path.is_dir raises an OSError for very long names
        path = _find_in_folder(path)
    elif not os.path.lexists(path):
        raise CheckpointError(f"{path}: no such file{hub_hint(path)}")
    buffer = map_file(path)
    container = joined(_read(path, buffer))
    return container if container.files else replace(container, files=((path, buffer),))


def source_of(path: str | os.PathLike[str], container: Container) -> Path:
    """Return what a path named that a container was opened by: its file, or the folder of that.

    >>> source_of("models/rwkv", Container(Path("models/rwkv/model.safetensors"), "safetensors", {})).name
    'rwkv'
    """
    opened = container.path.absolute()
    return opened if Path(path).name == opened.name else opened.parent


def _read(path: Path, buffer: Buffer) -> Container:
    """Read the container that the first bytes tell."""
    start = bytes(buffer[:512])
    if without_mark(start)[:1] == b"{":  # four bytes that are not the length of a safetensors header: it would be 2 GB
        start = without_mark(start)
    if any(start.startswith(magic) for magic, _ in _FOREIGN):
        raise CheckpointError(f"{path}: {_describe(start, buffer)}")
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return read_torch_zip(path, buffer)
    if start.startswith(b"GGUF"):
        return read_gguf(path, buffer)
    if start.startswith(b"fmgg"):
        return read_ggmf(path, buffer)
    # A safetensors header may be ord("{") bytes long, so a leading brace alone does not make a file an index.
    fits = int.from_bytes(start[:8], "little") <= len(buffer) - 8
    if start[8:9] == b"{" and (fits or start[:1] != b"{"):
        return read_safetensors(path, buffer)
    if start[:1] == b"{":
        _refuse_neighbours(path, start)
        if len(buffer) > HEADER_LIMIT:
            raise CheckpointError(f"{path}: a JSON text of {len(buffer)} bytes; an index has at most {HEADER_LIMIT}")
        return read_sharded(path, bytes(buffer[:]), _read_shard)
    raise CheckpointError(f"{path}: {_describe(start, buffer)}")


def _read_shard(path: Path, buffer: Buffer) -> Container:
    """Read one of several files: safetensors, or what torch.save wrote."""
    return (read_torch_zip if bytes(buffer[:2]) == b"PK" else read_safetensors)(path, buffer)


def _refuse_neighbours(path: Path, start: bytes) -> None:
    """Say what to do with the JSON files that lie beside a checkpoint."""
    if b'"weight_map"' in start or path.name.endswith(".index.json"):
        return
    if path.name == "tokenizer.json" or (b'"truncation"' in start and b'"padding"' in start):
        raise CheckpointError(f"{path}: this is a tokenizer, not a model; give it as the tokenizer (--tokenizer)")
    if path.name in ("config.json", "generation_config.json", "tokenizer_config.json") or b'"model_type"' in start:
        raise CheckpointError(f"{path}: this is a configuration, not a checkpoint; give the folder {path.parent}")


def _describe(start: bytes, buffer: Buffer) -> str:
    """Say what a file that is no readable checkpoint seems to be."""
    if not start:
        return "the file is empty"
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            return f"this is {what}"
    if start[257:262] == b"ustar":
        return f"this is a tar archive; if torch wrote it (version 0.1), {_RESAVE}"
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return f"this is a bare pickle, which is never read because it could run code; {_RESAVE}"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page, not a checkpoint; the download was probably an error page"
    if start[:8].strip(b"\0") == b"":
        return "it begins with zeros; the download was probably interrupted"
    return (
        f"not a checkpoint: torch zip files begin with b'PK\\x03\\x04', GGUF with b'GGUF', ggmf with b'fmgg', and "
        f"safetensors have b'{{' at byte 8; "
        f"this file of {len(buffer)} bytes begins with {start[:12]!r}"
    )


def _find_in_folder(folder: Path) -> Path:
    """Return the checkpoint of a folder: Hugging Face's names first, otherwise the only candidate."""
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if (folder / name).is_file():
            return folder / name
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    indices = [file for file in files if file.name.endswith(".safetensors.index.json")]
    indices = indices or [file for file in files if file.name == "pytorch_model.bin.index.json"]
    found = indices or [file for file in files if file.suffix in (".safetensors", ".st", ".pth", ".pt")]
    found = found or [file for file in files if file.name == "pytorch_model.bin"]
    found = found or [file for file in files if file.suffix == ".gguf" or _is_ggmf(file)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f"{folder}: no checkpoint in this folder (model.safetensors, or one .safetensors, .pth, .gguf or ggmf .bin)"
        )
    names = ", ".join(file.name for file in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise CheckpointError(f"{folder}: this folder holds {len(found)} checkpoints; name one of them: {names}{more}")


def _is_ggmf(file: Path) -> bool:
    """Tell rwkv.cpp files from the many others that end in ``.bin``."""
    if file.suffix != ".bin":
        return False
    with suppress(OSError), file.open("rb") as start:
        return start.read(4) == b"fmgg"
    return False
