"""Changes of torch zip files: of the pickle by whole operations, of the entries, and of the bytes of the directory."""

from __future__ import annotations

import functools
import io
import pickletools
import random
import zipfile

from torch_writer import ORDERED, STORAGE_OF, Name, Persistent, archive, emit, tensor

from . import byte_edits

_TUPLES = ((), (0,), (-1,), (2**40,), (0, 2**62), (1,) * 40, (2, 3), (True,), (1.5,), ("a",), (2**64,))
_VALUES = (
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**63),
    2**200,
    1.5,
    "",
    "a" * 300,
    "0",
    "storage",
    None,
    True,
    [],
    {},
    [1],
    {"a": 1},
)
_PIECES = (
    *(bytes((code,)) for code in b"(}])N\x88\x89tesuaRbQ\x85\x86\x87\x93\x94.2"),
    b"q\0", b"h\0", b"q\1", b"h\1", b"j\xff\xff\xff\xff", b"r\xff\xff\xff\xff", b"K\5", b"\x8a\1\xff", b"\x80\2",
    b"\x80\x09",
    b"U\3abc", b"T\0\0\0\0", b"\x8c\2\xff\xfe", b"\x8d" + b"\xff" * 8, b"\x95" + b"\xff" * 8, b"C\4abcd", b"0", b"1",
    b"M\xff\xff", b"J\0\0\0\x80", b"G\x7f\xf8" + bytes(6), b"(" * 70, b"]" * 70, b"cos\nsystem\n", b"cx\n",
    *map(emit, _TUPLES), *map(emit, _VALUES), emit(ORDERED),
    *(emit(Name("torch", name)) for name in (*STORAGE_OF.values(), "QInt8Storage")),
    emit(Name("torch._utils", "_rebuild_tensor_v2")), emit(Name("torch._utils", "_rebuild_parameter")),
    emit(Persistent(("storage", Name("torch", "FloatStorage"), "0", "cpu", 24))),
    emit(tensor("0", "float32", 6, (2, 3))),
)  # fmt: skip


def edited(data: bytes, rng: random.Random) -> bytes:
    """Return a changed file."""
    choice = rng.random()
    if choice < 0.2:
        return edited_directory(data, rng)
    entries = dict(_entries(data))
    pickle = next(name for name in entries if name.endswith("data.pkl"))
    if choice < 0.8:
        entries[pickle] = edited_pickle(entries[pickle], rng)
    elif choice < 0.9:
        entries[pickle] = byte_edits.edited(entries[pickle], rng)
    else:
        _edit_entries(entries, rng)
    return archive(entries, zipfile.ZIP_STORED if rng.random() < 0.98 else zipfile.ZIP_DEFLATED)


def edited_directory(data: bytes, rng: random.Random) -> bytes:
    """Return a file with changed bytes, mostly in what the archive says about its entries."""
    return byte_edits.edited(data, rng, _spans(data))


def _spans(data: bytes) -> byte_edits.Spans:
    """Return where the directory, its end record, and the first bytes of every entry are."""
    directory = max(data.find(b"PK\1\2"), 0)
    heads, at = [], data.find(b"PK\3\4")
    while 0 <= at < directory and len(heads) < 100:
        heads.append((at, at + 60))
        at = data.find(b"PK\3\4", at + 1)
    return [(directory, len(data)), (len(data) - 100, len(data)), *heads[:3]]


@functools.lru_cache(64)
def _entries(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return tuple((name, source.read(name)) for name in source.namelist())


@functools.lru_cache(64)
def _operations(data: bytes) -> tuple[bytes, ...]:
    starts = [at for _, _, at in pickletools.genops(data)]
    return tuple(data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True))


def edited_pickle(data: bytes, rng: random.Random) -> bytes:
    """Return a pickle with one to four operations changed; it is taken apart, never run."""
    pieces = list(_operations(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(pieces))
        choice = rng.randrange(8)
        if choice == 0:
            del pieces[at]
        elif choice == 1:
            pieces.insert(at, rng.choice(_PIECES))
        elif choice == 2:
            pieces.insert(at, pieces[rng.randrange(len(pieces))])
        elif choice == 3:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif choice == 4:
            pieces[at : at + 1] = pieces[at : at + rng.randrange(1, 40)] * rng.choice((1, 2, 2, 50))
        else:
            pieces[at] = _alike(pieces[at], rng)
        if not pieces:
            return b""
    return b"".join(pieces)


def _alike(piece: bytes, rng: random.Random) -> bytes:
    """Return another operation that pushes a value of the same kind: a number, a text, a name."""
    if piece[:1] in (b"\x8a", b"K", b"M", b"J"):
        return emit(rng.choice((*byte_edits.NUMBERS, -1, -2, -(2**63), True, 1.0)))
    if piece[:1] in (b"X", b"\x8c"):
        return emit(rng.choice(("", "0", "1", "99", "data", "a.weight", "\0", "../0", "a" * 70000, "storage", "é")))
    if piece[:1] == b"c":
        return emit(
            Name(
                *rng.choice(
                    (("torch", "DoubleStorage"), ("torch", "ByteStorage"), ("torch", "X"), ("os", "system"), ("", ""))
                )
            )
        )
    return rng.choice(_PIECES)


def _edit_entries(entries: dict[str, bytes], rng: random.Random) -> None:
    """Change names, presence and length of entries."""
    name = rng.choice(list(entries))
    choice = rng.randrange(5)
    if choice == 0 and len(entries) > 1:
        del entries[name]
    elif choice == 1:
        entries[name] = entries[name][: rng.randrange(len(entries[name]) + 1)]
    elif choice == 2:
        entries[
            rng.choice(("x/" + name, name + "/", name.upper(), "/" + name, "../" + name, "é", name.replace("/", "\\")))
        ] = entries.pop(name)
    elif choice == 3:
        folder = name.partition("/")[0]
        entries[f"{folder}/byteorder"] = rng.choice((b"big", b"little", b"", b"\xff" * 50))
    else:
        entries[rng.choice(("a/data.pkl", "x/code/y.py", "x.npy", "archive/constants.pkl"))] = b"\x80\x02}."
