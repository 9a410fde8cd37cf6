"""Encoding and decoding speed of the RWKV World tokenizer, beside pyrwkv-tokenizer where that is installed.

    python benchmarks/tokenizer_speed.py --vocab rwkv_vocab_v20230424.txt some_text.txt

The text is a plain UTF-8 file, or JSON lines with a "text" field. All contestants run in turn inside one loop on one
thread, and the table gives medians, so that a busy machine disturbs them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wkvnp.tokenizers


def read_text(path: str) -> str:
    text = Path(path).read_text(encoding="utf-8")
    if path.endswith(".jsonl"):
        return "\n".join(json.loads(line)["text"] for line in text.split("\n") if line)
    return text


def contestants(vocabulary: str, text: str) -> dict[str, Callable[[], Any]]:
    """Return what to time, after checking that all give the same ids."""
    start = time.perf_counter()
    ours = wkvnp.tokenizers.load_tokenizer(vocabulary)
    ids = ours.encode(text)
    print(f"first load and encode: {time.perf_counter() - start:.2f} s, compilation or its cache included")
    assert ours.decode(ids) == text
    listed = ids.tolist()
    runs: dict[str, Callable[[], Any]] = {
        "load": lambda: wkvnp.tokenizers.load_tokenizer(vocabulary),
        "encode": lambda: ours.encode(text),
        "decode": lambda: ours.decode(ids),
    }
    try:
        import pyrwkv_tokenizer
    except ImportError:
        print("pyrwkv-tokenizer is not installed: measured alone")
        return runs
    theirs = pyrwkv_tokenizer.RWKVTokenizer(vocab_filepath=vocabulary)
    assert theirs.encode(text) == listed, "the two tokenizers differ"
    return runs | {
        "load, pyrwkv": lambda: pyrwkv_tokenizer.RWKVTokenizer(vocab_filepath=vocabulary),
        "encode, pyrwkv": lambda: theirs.encode(text),
        "decode, pyrwkv": lambda: theirs.decode(listed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--vocab", help="vocabulary file (default: the one that 'rwkv-world' finds)")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    vocabulary = arguments.vocab
    if vocabulary is None:
        from wkvnp.tokenizers.vocabulary import installed_world_vocabulary

        vocabulary = installed_world_vocabulary()
    text = read_text(arguments.text)
    runs = contestants(vocabulary, text)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    megabytes = len(text.encode("utf-8")) / 1e6
    print(f"{megabytes:.2f} MB of text, median of {arguments.rounds} rounds, one thread")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        rate = "" if name.startswith("load") else f"{megabytes / median:8.1f} MB/s"
        print(f"{name:16} {median * 1e3:8.1f} ms {rate}")


if __name__ == "__main__":
    main()
