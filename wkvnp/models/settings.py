"""The fields of a ``config.json``: each is read, or known not to change a number, or the model is refused.

Models that are not described by their tensors alone carry such fields beside them: Hugging Face folders as a file, our
own safetensors in their metadata under ``config``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..checkpoints import Container
from ..checkpoints.mapped_file import map_file
from ..checkpoints.strict_json import parse_object
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError

_LARGEST_FILE = 1 << 22
_SMALLEST, _LARGEST = 1e-30, 1e30
# fmt: off
_HARMLESS = frozenset((
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_name_or_path", "add_cross_attention", "architectures", "attention_dropout", "auto_map", "bad_words_ids",
    "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward", "cross_attention_hidden_size",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping", "embd_pdrop",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "hidden_dropout", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "is_llama_config", "label2id", "length_penalty", "max_length", "max_position_embeddings",
    "max_sequence_length", "min_length", "model_max_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix",
    "pretraining_tp", "problem_type", "pruned_heads", "remove_invalid_values", "repetition_penalty", "resid_pdrop",
    "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "typical_p", "unsloth_fixed", "unsloth_version", "use_bfloat16",
    "use_cache", "use_mambapy",
))
# fmt: on
"""Fields about training, generation, tokens and other software."""


class Settings:
    """The fields of one configuration; every one that is read is ticked off.

    Attributes
    ----------
    fields : dict of str to object
        All of them.
    source : str
        What to call the configuration in an error.

    Parameters
    ----------
    fields : mapping of str to object
        As a ``config.json`` has them.
    source : str
        What to call the configuration in an error.

    Examples
    --------
    >>> settings = Settings({"hidden_size": 64, "use_cache": True}, "config.json")
    >>> settings.integer("hidden_size"), settings.number("rms_norm_eps", 1e-6)
    (64, 1e-06)
    >>> settings.finish()
    """

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        self.fields, self.source = dict(fields), source
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def fault(self, name: str, must_be: str) -> CheckpointError:
        """Return the error for a field that is not what it must be."""
        found = quoted(self.fields[name]) if name in self.fields else "no such field"
        return CheckpointError(f"{self.source}: {name} must be {must_be}; got {found}")

    def value(self, name: str) -> Any:
        """Return a field, or None where it is absent or null."""
        self._read.add(name)
        return self.fields.get(name)

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = 1 << 40) -> int:
        """Return a field that counts something."""
        value = self.value(name)
        number: Any = default if value is None else value
        if type(number) is not int or not least <= number <= most:
            raise self.fault(name, f"a whole number from {least}" + (f" to {most}" if most < 1 << 40 else ""))
        return number

    def number(self, name: str, default: float | None = None) -> float:
        """Return a field that is a number above 0."""
        value = self.value(name)
        number: Any = default if value is None else value
        if type(number) not in (int, float) or not 0 < number < math.inf:
            raise self.fault(name, "a number above 0")
        if not _SMALLEST <= number <= _LARGEST:  # what is computed from it would be infinite, or not a number
            raise self.fault(name, f"a number from {_SMALLEST} to {_LARGEST}")
        return float(number)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a field that is true or false."""
        value = self.value(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.fault(name, "true or false")
        return value

    def choice(self, name: str, choices: Iterable[Any], default: Any = None) -> Any:
        """Return a field that must be one of the `choices`: what else it could say is not implemented."""
        value = self.value(name)
        value = default if value is None else value
        choices = tuple(choices)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise self.fault(name, f"{' or '.join(map(repr, choices))}, the only values that wkvnp computes")
        return value

    def nested(self, name: str) -> Settings | None:
        """Return a field that holds fields, or None."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault(name, "an object")
        return Settings(value, f"{self.source}: {name}")

    def ignore(self, *names: str) -> None:
        """Tick off fields that change no number in this architecture."""
        self._read.update(names)

    def finish(self) -> None:
        """Refuse fields that nobody has read.

        Raises
        ------
        CheckpointError
            If there are some that may change numbers; null ones say nothing.
        """
        left = [name for name in self.fields if name not in self._read | _HARMLESS and self.fields[name] is not None]
        if left:
            named = ", ".join(f"{quoted(name)}: {quoted(self.fields[name])}" for name in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise CheckpointError(
                f"{self.source}: fields that wkvnp does not know may change the numbers: {named}{more}"
            )


def agree(sizes: Mapping[str, int], stated: Mapping[str, tuple[str, int]], source: str) -> None:
    """Refuse tensors whose axes are not as long as configured: `stated` has the name and size for each letter."""
    for letter, (name, size) in stated.items():
        if sizes.get(letter, size) != size:
            raise CheckpointError(f"{source}: {name} must be {size}, as configured; the tensors have {sizes[letter]}")


def fields_of(container: Container) -> tuple[dict[str, Any], str] | None:
    """Return the fields that a checkpoint carries, and what to call them; None if it carries none.

    Raises
    ------
    CheckpointError
        If they are no JSON object.
    """
    if "config" in container.metadata:
        source = f"{container.path}: config in the metadata"
        return parse_object(container.metadata["config"].encode(), source, infinite=True), source
    file = container.path.parent / "config.json"
    if container.format in ("safetensors", "torch-zip") and file.is_file():
        return parse_object(bytes(map_file(file, _LARGEST_FILE)[:]), str(file), infinite=True), str(file)
    return None


def as_metadata(architecture: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a safetensors file that carries fields."""
    return {"architecture": architecture, "config": json.dumps(dict(fields), sort_keys=True)}
