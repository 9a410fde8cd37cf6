"""Interpret the pickle inside a torch file without Python's pickle: data in, plain data out, nothing ever called.

A pickle is a program for a small stack machine. This one knows only the opcodes that weights need. Names of Python
objects are compared as strings and become inert `Global` nodes; REDUCE, the opcode that calls, is followed for three
names that describe tensors and refused for every other. The result is never walked recursively, hashed or printed,
so nested or self-containing objects in a hostile file cost no more than their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import CheckpointError
from .tensors import quoted

PICKLE_LIMIT = 4 << 20  # bytes; the pickle of a model with 2,000 tensors takes about 0.3 MB
_OPCODE_LIMIT = 1 << 20  # about 50 belong to a tensor
_STRING_LIMIT = 1 << 16
_DEPTH_LIMIT = 64
_MEMO_LIMIT = 1 << 20

STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True, eq=False)
class Global:
    """The name of a Python object; never looked up."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A block of numbers in the entry ``data/<key>`` of the archive."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as the pickle describes it, unchecked: offset and strides are counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Opaque:
    """A value that weights do not need and whose content was dropped."""


_OPAQUE = Opaque()


class PickleReader:
    """One run over the bytes of a pickle; `read` returns its object.

    Dicts keep only the entries whose keys are strings: other keys belong to optimizer states, and hostile integers
    could all fall into one slot of the hash table.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._at = 0
        self._source = source
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Run the program to its STOP and return what is left on the stack.

        Raises
        ------
        CheckpointError
            If the pickle is damaged, or needs anything that a file of weights does not.
        """
        for _ in range(_OPCODE_LIMIT):
            opcode = self._take(1)[0]
            if opcode == 0x2E:  # STOP
                break
            handler = _HANDLERS.get(opcode)
            if handler is None:
                self._fail(f"uses opcode {opcode:#04x}, which files of weights do not need; nothing was run")
            handler(self)
        else:
            self._fail(f"has more than {_OPCODE_LIMIT} operations")
        if len(self._stack) != 1 or self._marks or self._at != len(self._data):
            self._fail("is damaged at its end")
        return self._stack[0]

    def _fail(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self._source}: its pickle {reason}")

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            self._fail("is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 256)
        if end < 0:
            self._fail("has a name without end")
        line = self._take(end + 1 - self._at)[:-1]
        return line.decode("utf-8", "replace")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            self._fail("takes more from its stack than there is")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            self._fail("closes a group that was never opened")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type, opcode: str) -> Any:
        value = self._pop()
        if not isinstance(value, kind):
            self._fail(f"applies {opcode} to a value of another kind")
        self._stack.append(value)
        return value

    # The opcodes, grouped by what they do.

    def _protocol(self) -> None:
        if not 2 <= self._take(1)[0] <= 5:
            self._fail("has an unknown protocol")

    def _frame(self) -> None:
        self._take(8)

    def _mark(self) -> None:
        if len(self._marks) >= _DEPTH_LIMIT:
            self._fail(f"is nested more than {_DEPTH_LIMIT} deep")
        self._marks.append(len(self._stack))

    def _text(self, form: str) -> None:
        length = self._number(form)
        if length > _STRING_LIMIT:
            self._fail(f"has a string of {length} bytes, more than {_STRING_LIMIT}")
        try:
            self._push(self._take(length).decode("utf-8"))
        except UnicodeDecodeError:
            self._fail("has a string that is not UTF-8")

    def _raw_bytes(self, form: str) -> None:
        self._take(self._number(form))
        self._push(_OPAQUE)

    def _small_long(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _tuple_of(self, count: int) -> None:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            self._fail("takes more from its stack than there is")
        self._stack[start:] = [tuple(self._stack[start:])]

    def _append(self) -> None:
        item = self._pop()
        self._top(list, "APPEND").append(item)

    def _appends(self) -> None:
        items = self._pop_mark()
        self._top(list, "APPENDS").extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            self._fail("sets a key without a value")
        target = self._top(dict, "SETITEMS")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is str:
                if key in target:
                    self._fail(f"sets the key {quoted(key)} twice")
                target[key] = value

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _remember(self, index: int) -> None:
        if index >= _MEMO_LIMIT:
            self._fail(f"remembers more than {_MEMO_LIMIT} values")
        value = self._pop()
        self._stack.append(value)
        self._memo[index] = value

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            self._fail("recalls a value that it never remembered")
        self._push(self._memo[index])

    def _global_lines(self) -> None:
        module = self._line()
        self._push(Global(f"{module}.{self._line()}"))

    def _global_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            self._fail("names a global by something that is not text")
        self._push(Global(f"{module}.{name}"))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            self._fail("calls something that is not a name")
        if function.name == "collections.OrderedDict" and arguments == ():
            self._push({})
        elif function.name == "torch._utils._rebuild_tensor_v2":
            self._push(self._tensor(arguments))
        elif function.name == "torch._utils._rebuild_parameter":
            if not arguments or not isinstance(arguments[0], StoredTensor):
                self._fail("has a parameter without a tensor")
            self._push(arguments[0])
        else:
            self._fail(
                f"calls {quoted(function.name)}, which files of weights do not need; nothing was run. "
                "If you trust the file, save only its tensors anew with torch.save or as safetensors"
            )

    def _tensor(self, arguments: tuple[Any, ...]) -> StoredTensor:
        if not 6 <= len(arguments) <= 7 or (len(arguments) == 7 and arguments[6]):
            self._fail("describes a tensor in an unknown way")
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage) or type(offset) is not int:
            self._fail("describes a tensor without its storage")
        for sizes in (shape, strides):
            if type(sizes) is not tuple or any(type(size) is not int for size in sizes):
                self._fail("describes a tensor whose shape or strides are not integers")
        if len(shape) != len(strides):
            self._fail("describes a tensor with another number of strides than axes")
        return StoredTensor(storage, offset, shape, strides)

    def _build(self) -> None:
        # On a dict of weights this carries only version numbers of torch modules.
        self._pop()
        self._top(dict, "BUILD")

    def _persistent(self) -> None:
        value = self._pop()
        if type(value) is not tuple or len(value) != 5 or value[0] != "storage":
            self._fail("refers to something outside it that is not a storage")
        _, kind, key, _, count = value
        if not isinstance(kind, Global) or type(key) is not str or type(count) is not int or count < 0:
            self._fail("describes a storage in an unknown way")
        module, _, name = kind.name.rpartition(".")
        if module != "torch" or name not in STORAGES:
            self._fail(f"has a tensor of type {quoted(kind.name)}; readable are {', '.join(sorted(STORAGES))}")
        self._push(Storage(key, STORAGES[name], count))


Handler = Callable[[PickleReader], None]

_HANDLERS: dict[int, Handler] = {
    0x80: PickleReader._protocol,
    0x95: PickleReader._frame,
    ord("("): PickleReader._mark,
    ord("}"): lambda reader: reader._push({}),
    ord("]"): lambda reader: reader._push([]),
    ord(")"): lambda reader: reader._push(()),
    ord("N"): lambda reader: reader._push(None),
    0x88: lambda reader: reader._push(True),
    0x89: lambda reader: reader._push(False),
    ord("X"): lambda reader: reader._text("<L"),
    0x8C: lambda reader: reader._text("<B"),
    0x8D: lambda reader: reader._text("<Q"),
    ord("T"): lambda reader: reader._text("<L"),  # the byte strings of Python 2
    ord("U"): lambda reader: reader._text("<B"),
    ord("B"): lambda reader: reader._raw_bytes("<L"),
    ord("C"): lambda reader: reader._raw_bytes("<B"),
    ord("J"): lambda reader: reader._push(reader._number("<l")),
    ord("K"): lambda reader: reader._push(reader._number("<B")),
    ord("M"): lambda reader: reader._push(reader._number("<H")),
    ord("G"): lambda reader: reader._push(reader._number(">d")),
    0x8A: PickleReader._small_long,
    ord("t"): lambda reader: reader._push(tuple(reader._pop_mark())),
    0x85: lambda reader: reader._tuple_of(1),
    0x86: lambda reader: reader._tuple_of(2),
    0x87: lambda reader: reader._tuple_of(3),
    ord("a"): PickleReader._append,
    ord("e"): PickleReader._appends,
    ord("s"): PickleReader._set_item,
    ord("u"): lambda reader: reader._set_items(reader._pop_mark()),
    ord("q"): lambda reader: reader._remember(reader._number("<B")),
    ord("r"): lambda reader: reader._remember(reader._number("<L")),
    0x94: lambda reader: reader._remember(len(reader._memo)),
    ord("h"): lambda reader: reader._recall(reader._number("<B")),
    ord("j"): lambda reader: reader._recall(reader._number("<L")),
    ord("c"): PickleReader._global_lines,
    0x93: PickleReader._global_stack,
    ord("R"): PickleReader._reduce,
    ord("b"): PickleReader._build,
    ord("Q"): PickleReader._persistent,
}
