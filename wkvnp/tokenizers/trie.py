"""Longest match: the tokenizer of the RWKV World models.

The vocabulary becomes a trie in one flat array. A node owns no storage of its own: it has a *base*, and its child for
byte ``c`` lives at ``slots[base ^ c]`` if the label there is ``c``. No two nodes share a base, so the label
alone proves the parent, and one load per byte answers everything. A slot packs, from the high end, the id of the token
that ends there (0: none), the base of the node, and its label (256: empty slot).

A table for the first two bytes at once was no faster on English text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._jit import jit, kernel
from .folder import end_tokens
from .table import TableTokenizer
from .vocabulary import WORLD_FILE, read_vocabulary

_EMPTY = 256
# Block 0 stays empty: it is the base of leaves, so a walk fails there without asking whether the node is a leaf.
_ROOT = np.uint64(256)
_ID_SHIFT = np.uint64(40)
_BASE_SHIFT = np.uint64(9)
_BASE_MASK = np.uint64((1 << 31) - 1)
_LABEL_MASK = np.uint64((1 << 9) - 1)
_ONE = np.uint64(1)

# Ids per launch: a few tens of milliseconds, so that Ctrl-C is heard.
_LAUNCH = 1 << 20
# The World models have more logits than the file has ids.
_WORLD_TOKENS, _WORLD_SIZE = 65529, 65536


class TrieTokenizer(TableTokenizer):
    """Encode by taking, again and again, the longest token that the rest of the text starts with.

    Parameters
    ----------
    name : str
        What messages call it.
    tokens : list of (bytes or None)
        The bytes of every id, every single byte among them; id 0 ends a text and is never found in one.
    control : dict of str to int
        Ids that are found only with ``special=True``, by the text that stands for them. The World vocabulary has none.
    """

    def __init__(self, name: str, tokens: list[bytes | None], control: Mapping[str, int] | None = None) -> None:
        self._control = dict(control or {})
        hidden = set(self._control.values())
        self._slots = pack_trie([b"" if id in hidden else token or b"" for id, token in enumerate(tokens)])
        longest_first = sorted(self._control, key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        self.reach = None if self._control else max(len(token or b"") for token in tokens)
        super().__init__(name, tokens, end_of_text=0)

    def encode(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`, int32."""
        data = self._utf8(text)
        if self._marks is None or not special:
            return self.encode_bytes(data)
        parts = self._marks.split(text)
        found = [np.array([self._control[part]], np.int32) for part in parts[1::2]]
        rest = [self.encode_bytes(part.encode("utf-8")) for part in parts[::2]]
        return np.concatenate([ids for pair in zip(rest, [*found, rest[0][:0]], strict=True) for ids in pair])

    def encode_bytes(self, data: bytes) -> npt.NDArray[np.int32]:
        """Return the token ids of `data`, which need not be UTF-8, int32."""
        if not data:
            return np.empty(0, np.int32)
        text = np.frombuffer(data, np.uint8)
        buffer = np.empty(min(text.size, _LAUNCH), np.int32)
        cursor = np.zeros(2, np.int64)
        pieces = []
        while cursor[0] < text.size:
            match_longest.serial(text, self._slots, buffer, cursor)
            pieces.append(buffer[: cursor[1]].copy())
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def world_tokenizer(text: bytes, path: str) -> TrieTokenizer:
    """Return the tokenizer of a vocabulary file in the format of ``rwkv_vocab_v20230424.txt``.

    Raises
    ------
    TokenizerError
        It is not such a vocabulary; the message names the line.
    """
    tokens = read_vocabulary(text, path)
    if len(tokens) == _WORLD_TOKENS + 1:
        made = TrieTokenizer("rwkv-world", [*tokens, *[None] * (_WORLD_SIZE - len(tokens))])
    else:
        made = TrieTokenizer(Path(path).stem, [*tokens])
    if Path(path).name == WORLD_FILE:
        # The file gives id 0 no bytes; tokenizers elsewhere have names for it.
        ends = end_tokens(Path(path).parent, lambda name: tokens.index(t) if (t := name.encode()) in tokens else 0)
        made.stop_tokens = ends and tuple(dict.fromkeys((0, *ends)))
    return made


def pack_trie(tokens: list[bytes]) -> npt.NDArray[np.uint64]:
    """Return the slots of the trie of ``tokens[1:]``, without the empty ones, read-only."""
    order = sorted((id for id in range(1, len(tokens)) if tokens[id]), key=tokens.__getitem__)
    text = np.frombuffer(b"".join([tokens[id] for id in order]), np.uint8)
    ends = np.zeros(len(order) + 1, np.int64)
    np.cumsum([len(tokens[id]) for id in order], out=ends[1:])
    ids = np.array(order, np.int64)
    queue = np.empty((text.size + 1, 4), np.int64)
    used = np.zeros(1, np.int64)
    capacity = 1024 + (text.size | 255) + 1
    while not used[0]:
        slots = np.empty(capacity, np.int64)
        place_nodes.serial(text, ends, ids, queue, slots, np.zeros(capacity, np.bool_), used)
        capacity *= 2
    packed = slots[: used[0]].copy().view(np.uint64)
    packed.flags.writeable = False
    return packed


@jit
def find_base(slots, base_taken, labels, children, search_from):  # type: ignore[no-untyped-def]
    # Per number of children the search goes on where the last one ended: 15 times faster than from the first gap,
    # for a fifth more slots. 0: no room.
    for gap in range(search_from[children], slots.size):
        base = gap ^ labels[0]
        if slots[gap] == _EMPTY and not base_taken[base]:
            child = 1
            while child < children and slots[base ^ labels[child]] == _EMPTY:
                child += 1
            if child == children:
                search_from[children] = gap + 1
                return base
    return 0


@kernel
def place_nodes(  # type: ignore[no-untyped-def]
    text,  # IN bytes of all tokens, the tokens sorted
    ends,  # IN (tokens + 1,) where each token starts in text
    ids,  # IN (tokens,)
    queue,  # WORK (nodes, 4): first token, end token, depth, slot of each node
    slots,  # OUT (capacity,), a multiple of 256
    base_taken,  # WORK (capacity,), all False
    used,  # OUT (1,): slots needed, in whole blocks; 0 when the capacity does not suffice
):
    # Breadth first, each node with a range of sorted tokens that share a prefix.
    slots[:] = _EMPTY
    labels = np.empty(256, np.int64)
    starts = np.empty(257, np.int64)
    search_from = np.full(257, 512, np.int64)
    queue[0, 0], queue[0, 1], queue[0, 2], queue[0, 3] = 0, ids.size, 0, 0
    used[0] = 0
    last = 511
    head, tail = 0, 1
    while head < tail:
        token, end, depth, slot = queue[head, 0], queue[head, 1], queue[head, 2], queue[head, 3]
        head += 1
        if ends[token + 1] - ends[token] == depth:
            token += 1
        children = 0
        while token < end:
            label = np.int64(text[ends[token] + depth])
            if children == 0 or labels[children - 1] != label:
                labels[children] = label
                starts[children] = token
                children += 1
            token += 1
        if children == 0:
            continue
        starts[children] = end
        base = 256
        if slot != 0:
            base = find_base(slots, base_taken, labels, children, search_from)
            if base == 0:
                return
            slots[slot] |= base << 9
        base_taken[base] = True
        for child in range(children):
            place = base ^ labels[child]
            first = starts[child]
            whole = ends[first + 1] - ends[first] == depth + 1
            slots[place] = labels[child] | (ids[first] << 40 if whole else 0)
            last = max(last, place)
            queue[tail, 0], queue[tail, 1], queue[tail, 2], queue[tail, 3] = first, starts[child + 1], depth + 1, place
            tail += 1
    used[0] = (last | 255) + 1


@kernel
def match_longest(  # type: ignore[no-untyped-def]
    text,  # IN (bytes,)
    slots,  # IN the trie
    out,  # OUT ids
    cursor,  # IN/OUT (2,): byte to go on from; number of ids written
):
    # Unsigned throughout: signed indices cost a fifth, because negative ones mean something.
    here = np.uint64(cursor[0])
    size, room = np.uint64(text.size), np.uint64(out.size)
    count = np.uint64(0)
    while here < size and count < room:
        slot = slots[_ROOT ^ np.uint64(text[here])]
        best = slot >> _ID_SHIFT
        here += _ONE
        ahead = here
        while ahead < size:
            byte = np.uint64(text[ahead])
            slot = slots[((slot >> _BASE_SHIFT) & _BASE_MASK) ^ byte]
            if (slot & _LABEL_MASK) != byte:
                break
            ahead += _ONE
            id = slot >> _ID_SHIFT
            if id:
                best = id
                here = ahead
        out[count] = best
        count += _ONE
    cursor[0] = here
    cursor[1] = count
