"""The vocabulary file of the RWKV World tokenizer: where it is and what it says.

Each line is ``id literal length``: the id counts up from 1, the literal is a Python ``str`` (to be encoded as UTF-8)
or ``bytes``, and the length counts bytes. Id 0 ends a text and is not in the file.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from ..errors import MissingExtraError, TokenizerError

WORLD_FILE = "rwkv_vocab_v20230424.txt"
# Both carry the file; neither is imported. The second is for Pythons that the first has no wheel for.
_CARRIERS = ("pyrwkv_tokenizer", "rwkv")

# All tokens together; those of World have 0.5 MB.
_MOST_BYTES = 1 << 22

_LINE = re.compile(
    r"""([0-9]{1,9})[ ]                              # id
        (b?)(?: '([^'\\\r]*(?:\\.[^'\\\r]*)*)'       # literal in single ...
              | "([^"\\\r]*(?:\\.[^"\\\r]*)*)" )     # ... or double quotes
        [ ]([0-9]{1,9})""",  # length in bytes
    re.VERBOSE,
)
_STR_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
# The empty groups keep the numbers of the groups the same.
_BYTES_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})()()|(.))")
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


def installed_world_vocabulary() -> str:
    """Return the path of the World vocabulary inside an installed package that carries it."""
    for package in _CARRIERS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            path = Path(folder) / WORLD_FILE
            if path.is_file():
                return str(path)
    raise MissingExtraError(
        "pyrwkv-tokenizer",
        "world",
        f"load_tokenizer: 'rwkv-world' without WKVNP_WORLD_VOCAB (the path of {WORLD_FILE})",
    )


def read_vocabulary(data: bytes, path: str) -> list[bytes]:
    """Return the bytes of every id of a vocabulary file, with ``b""`` for id 0.

    Parameters
    ----------
    data : bytes
        What is in the file, in the format above; lines end in LF or CRLF.
    path : str
        What messages call it.

    Returns
    -------
    list of bytes
        No two alike, and every single byte is among them, so any text can be encoded.

    Raises
    ------
    TokenizerError
        Naming the file and the line, when it is anything else.
    """
    tokens = [b""]
    for number, line in enumerate(_lines(data, path), 1):
        try:
            tokens.append(_token(line, number))
        except ValueError as error:
            raise TokenizerError(f"{path}, line {number}: {error}") from None
    check_tokens(tokens, path, "line")
    return tokens


def _lines(data: bytes, path: str) -> list[str]:
    if len(data) > 2 * _MOST_BYTES:
        raise TokenizerError(f"{path}: {len(data)} bytes are too many for a vocabulary (limit {2 * _MOST_BYTES})")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TokenizerError(f"{path}, line {line}: a vocabulary must be UTF-8 text; {error.reason}") from None
    # Not splitlines(): literals hold U+0085 and U+2028 as they are.
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _token(line: str, number: int) -> bytes:
    match = _LINE.fullmatch(line.removesuffix("\r"))
    if match is None:
        raise ValueError(f"must be an id, a Python string literal and a length; got {line[:80]!r}")
    id, prefix, single, double, length = match.groups()
    body = double if single is None else single
    token = literal_bytes(body) if prefix else _str_body(body)
    if int(id) != number:
        raise ValueError(f"ids must count up from 1 without gaps; expected {number}, got {id}")
    if not token or int(length) != len(token):
        raise ValueError(f"the length must be that of the token, {len(token)} bytes, and not 0; got {length}")
    return token


def _str_body(body: str) -> bytes:
    if "\\" in body:
        body = _STR_ESCAPE.sub(_character, body)
    return body.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, a ValueError


def literal_bytes(body: str) -> bytes:
    """Return what a Python literal of bytes stands for, given without its quotes; a ValueError says what is wrong."""
    if not body.isascii():
        raise ValueError(f"a bytes literal must be ASCII with \\x escapes; got b'{body[:80]}'")
    return _BYTES_ESCAPE.sub(_character, body).encode("latin-1")


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code:
        return chr(int(code, 16))  # above 0x10ffff: ValueError
    if escape[4] not in _SHORT:
        raise ValueError(f"escape {escape[0]} must be one of \\x \\n \\r \\t \\\\ \\' \\\"")
    return _SHORT[escape[4]]


def check_tokens(tokens: list[bytes], source: str, unit: str) -> None:
    """Check that no two tokens are alike, and that every text can be encoded; ids without a token are empty.

    Raises
    ------
    TokenizerError
        Naming the `unit` of the `source`: line or id.
    """
    size = sum(map(len, tokens))
    if size > _MOST_BYTES:
        raise TokenizerError(f"{source}: its tokens have {size} bytes; at most {_MOST_BYTES} are read")
    known = set(tokens)
    if len(known) < len(tokens):
        first: dict[bytes, int] = {}
        for number, token in enumerate(tokens):
            if token and first.setdefault(token, number) < number:
                raise TokenizerError(f"{source}, {unit} {number}: {token!r:.60} is already on {unit} {first[token]}")
    missing = [byte for byte in range(256) if bytes((byte,)) not in known]
    if missing:
        raise TokenizerError(
            f"{source}, {unit} {len(tokens) - 1}: the vocabulary ends without {len(missing)} of the 256 single bytes, "
            f"the first being {bytes(missing[:1])!r}; text with them could not be encoded"
        )
