"""Arguments as people give them: keywords of other libraries, seeds, and a model where a tokenizer belongs."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from .errors import ArgumentError, KeywordError

P = ParamSpec("P")
R = TypeVar("R")

_OURS = {
    "causal": "is_causal",
    "scale": "softmax_scale sm_scale scaling",
    "window": "window_size sliding_window",
    "slopes": "alibi_slopes",
    "sinks": "s_aux",
    "softcap": "logits_soft_cap attn_logit_softcapping logit_cap",
    "log_decay": "g gk w decay log_alpha",
    "state": "initial_state past_key_values past_key_value cache_params cache h0 hx",
    "cu_seqlens": "cu_seq_lens cu_seqlens_q seq_idx",
    "normalize": "normalise use_norm",
    "qk_l2norm": "use_qk_l2norm_in_kernel use_qk_l2norm qk_norm",
    "window_blocks": "num_window_blocks",
    "eps": "epsilon",
    "reverse": "flip backward",
    "q": "query queries",
    "k": "key keys",
    "v": "value values",
    "r": "receptance q",
    "prompt": "input_ids inputs text prompts",
    "max_tokens": "max_new_tokens max_length n_predict",
    "rng": "seed generator random_state",
    "stop": "stop_strings stop_sequences",
    "stop_tokens": "eos_token_id stop_token_ids",
    "ban": "bad_words_ids suppress_tokens",
    "progress": "callback",
    "path": "pretrained_model_name_or_path model model_path checkpoint filename",
    "dtype": "torch_dtype strategy",
    "tokens": "input_ids idx x",
    "hidden": "output_hidden_states hidden_states",
    "logits": "logits_to_keep num_logits_to_keep full_output",
}
"""What we call it: what others do."""

_ABSENT = {
    "attn_mask attention_mask mask key_padding_mask attn_bias": "there are no masks, and nothing is padded",
    "dropout dropout_p attn_dropout": "nothing is dropped: this library runs forward only",
    "enable_gqa": "fewer heads of k and v are groups without it",
    "head_first": "axes are always (B, T, H, K)",
    "output_final_state return_final_state use_cache return_dict": "the state is always returned",
    "do_sample": "temperature=0 is greedy",
    "device device_map": "it computes where the arrays are",
    "chunk_size": "how time is cut is chosen inside",
}
"""What others have and we have not: why."""


def named(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function answer a keyword that it does not have with those that it has.

    Examples
    --------
    >>> @named
    ... def mean(x, *, causal=True): ...
    >>> mean([1.0], is_causal=False)
    Traceback (most recent call last):
    wkvnp.errors.KeywordError: mean: there is no argument 'is_causal'; here it is causal=; it takes x, causal
    """
    assert isinstance(function, FunctionType)
    code = function.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    label = "model" if function.__name__ == "__call__" else function.__name__
    names, refuse = frozenset(known), functools.partial(_refuse, label, tuple(name for name in known if name != "self"))

    def checked(*arguments: Any, **keywords: Any) -> Any:
        if not keywords.keys() <= names:
            refuse(keywords)
        return function(*arguments, **keywords)

    # With the names of its module doctest finds it there.
    same = FunctionType(checked.__code__, function.__globals__, function.__name__, None, checked.__closure__)
    return cast("Callable[P, R]", functools.update_wrapper(same, function))


def _refuse(label: str, known: tuple[str, ...], keywords: Collection[str]) -> None:
    name = next(name for name in keywords if name not in known)
    raise KeywordError(f"{label}: there is no argument {name!r}; {advice(name, known)}it takes {', '.join(known)}")


def advice(name: str, known: Collection[str]) -> str:
    """Return which of the known keywords was probably meant, or why there is none like it; or nothing."""
    ours = [word for word, others in _OURS.items() if word in known and name in others.split()]
    ours = ours or difflib.get_close_matches(name, known, 1, 0.75)
    if ours:
        return f"here it is {ours[0]}=; "
    why = next((reason for words, reason in _ABSENT.items() if name in words.split()), "")
    if why and "mask" in why:
        why += "".join(f"; {text}" for word, text in _INSTEAD_OF_MASKS.items() if word in known)
    return f"{why}; " if why else ""


_INSTEAD_OF_MASKS = {
    "causal": "causal= says whether later tokens are hidden",
    "cu_seqlens": "cu_seqlens= packs sequences of unequal length",
    "tokens": "tokens may be a list of sequences of unequal length",
    "prompt": "prompt may be a list of unequal length",
}


def generator_of(function: str, rng: Any, *, optional: bool = True) -> np.random.Generator:
    """Return where random numbers come from: a generator as it is, or one that begins with a seed.

    Examples
    --------
    >>> generator_of("generate", -3)
    Traceback (most recent call last):
    wkvnp.errors.ArgumentError: generate: rng must be a whole number from 0, a numpy.random.Generator or None; got -3
    """
    try:
        if isinstance(rng, bool) or (rng is None and not optional):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        kinds = "a whole number from 0, a numpy.random.Generator or None"
        kinds = kinds if optional else "a whole number from 0 or a numpy.random.Generator"
        raise ArgumentError(f"{function}: rng must be {kinds}; got {rng!r:.100}") from None


def check_roles(function: str, model: Any, tokenizer: Any, text: str) -> None:
    """Refuse a model, a tokenizer or a text in each other's place.

    Raises
    ------
    ArgumentError
        Naming the order of the arguments of `function`, whose third is called `text`.
    """
    order = f"the order is {function}(model, tokenizer{', ' * bool(text)}{text})"
    check_model(function, model, order)
    if not _is_tokenizer(tokenizer):
        remedy = f"; wkvnp.load_tokenizer({tokenizer!r:.40}) makes one of a name" if isinstance(tokenizer, str) else ""
        raise ArgumentError(
            f"{function}: tokenizer must be a tokenizer, as wkvnp.load_tokenizer returns; "
            f"got {_kind(tokenizer)}{remedy}; {order}"
        )


def check_model(function: str, model: Any, order: str) -> None:
    """Refuse something else where a model belongs.

    Raises
    ------
    ArgumentError
        Naming the `order` of the arguments.
    """
    if not callable(model) or _is_tokenizer(model) or not hasattr(model, "config"):
        raise ArgumentError(f"{function}: model must be a model, as wkvnp.load returns; got {_kind(model)}; {order}")


def _is_tokenizer(thing: Any) -> bool:
    return hasattr(thing, "token_bytes")


def _kind(thing: Any) -> str:
    return f"the text {thing!r:.40}" if isinstance(thing, str) else f"{thing!r:.80}"
