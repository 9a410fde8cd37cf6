r"""How llama.cpp splits a text before byte-level BPE, by what a GGUF file calls it in ``tokenizer.ggml.pre``.

The names and what they stand for are those of ``llm_tokenizer_bpe`` and ``llama_vocab::impl::load`` in
ggml-org/llama.cpp, ``src/llama-vocab.cpp``; the expressions are those of the published ``tokenizer.json``, where
llama.cpp writes the same in another way. Each splits what the one before it left whole. Names that are not here (as
``superbpe`` and ``kimi-k2``) need expressions that take too long (`wkvnp.tokenizers.patterns`), or code of their own.
"""

from __future__ import annotations

from typing import NamedTuple

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_SHORT}|{_WORD}|\p{{N}}{{1,3}}|{_OTHERS}|{_BLANKS}"
_QWEN2 = rf"{_SHORT}|{_WORD}|\p{{N}}|{_OTHERS}|{_BLANKS}"
_MARKED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_QWEN35 = rf"{_MARKED}|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str, digits: str) -> str:
    before = r"[^\r\n\p{L}\p{N}]?"
    words = f"{before}{_UPPER}*{_LOWER}+{ending}|{before}{_UPPER}+{_LOWER}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"


_TEKKEN = _cased("", r"\p{N}")
_GPT4O = _cased(f"{_SHORT}?", r"\p{N}{1,3}")
_KANA = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    _KANA,
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + _BLANKS,
)
_DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_BAILING = rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|\p{{N}}|{_OTHERS}|\s*[\r\n]|\s+(?!\S)|\s+"
_LONG_BLANKS = "|".join(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1))
_JAIS2 = rf"{_SHORT}|{_WORD}|\p{{N}}{{1,3}}|{_OTHERS}|{_LONG_BLANKS}|\s{{1,2}}(?!\S)|\s"
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")


class Split(NamedTuple):
    """What a name stands for.

    Attributes
    ----------
    expressions : tuple of str
        What finds the parts of a text.
    whole_words : bool
        A part that is a token is taken as it is, without merges.
    begins : bool
        A text begins with the token for that, unless the file says otherwise.
    """

    expressions: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


_NAMES = {
    "default": Split(_DEFAULT),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2": Split((_LLAMA3,), True, True),
    "dbrx smaug-bpe glm4 chatglm-bpe": Split((_LLAMA3,)),
    "minicpm5": Split((r"\p{N}{1,3}", _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")), True),
    "deepseek-coder": Split(_DEEPSEEK_CODER),
    "deepseek-v3 hunyuan-dense joyai-llm": Split(_DEEPSEEK3),
    "falcon": Split(_FALCON),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": Split((r"\p{N}", _GPT2)),
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais trillion "
    "granite-docling exaone4": Split((_GPT2,)),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2": Split((_QWEN2,)),
    "qwen35": Split((_QWEN35,)),
    "poro-chat bloom gpt3-finnish": Split((_BLOOM,)),
    "viking": Split((_BLOOM, r"\p{N}")),
    "tekken": Split((_TEKKEN,), True, True),
    "gpt-4o llama4 kanana2 minimax-m2": Split((_GPT4O,)),
    "bailingmoe bailingmoe2 llada-moe": Split((_BAILING,)),
    "seed-coder": Split((_QWEN2.replace(_OTHERS, r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    "ufakzeka": Split((_QWEN2.removeprefix(f"{_SHORT}|"),)),
    "jais-2": Split((_JAIS2,)),
}
SPLITS: dict[str, Split] = {name: split for names, split in _NAMES.items() for name in names.split()}
