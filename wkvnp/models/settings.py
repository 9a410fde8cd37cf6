"""The fields of a ``config.json``: each is read, or known not to change a number, or refused, or nobody's and named.

Models that are not described by their tensors alone carry such fields beside them: Hugging Face folders as a file, our
own safetensors in their metadata under ``config``.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from ..checkpoints import Container
from ..checkpoints.mapped_file import map_file
from ..checkpoints.strict_json import parse_object
from ..checkpoints.tensors import quoted
from ..errors import ArgumentError, CheckpointError, UnknownFieldWarning
from ._known_fields import HARMLESS, MATTERS_WHEN_NULL, MAY_MATTER, NEUTRAL

_LARGEST_FILE = 1 << 22
_SMALLEST, _LARGEST = 1e-30, 1e30
SILU = ("silu", "swish")
"""The two names of the activation that all models here have."""
_OLD_TYPES = {"attention": "full_attention", "mamba": "linear_attention"}


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
    place : str
        The prefix of their names if they are a part of others, as ``"rope_scaling."``.

    Examples
    --------
    >>> settings = Settings({"hidden_size": 64, "use_cache": True}, "config.json")
    >>> settings.integer("hidden_size"), settings.number("rms_norm_eps", 1e-6)
    (64, 1e-06)
    >>> settings.finish()
    """

    def __init__(self, fields: Mapping[str, Any], source: str, place: str = "") -> None:
        self.fields, self.source = dict(fields), source
        self._read: set[str] = set()
        self._place = place
        self._remarks: list[str] = []  # also those inside nested fields, of which there is one warning

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

    def layers(self) -> int:
        """Return ``num_hidden_layers``: no more than any model has, since lists are made of that length."""
        return self.integer("num_hidden_layers", most=1 << 16)

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
        inside = Settings(value, f"{self.source}: {name}", f"{self._place}{name}.")
        inside._remarks = self._remarks
        return inside

    def ignore(self, *names: str) -> None:
        """Tick off fields that change no number in this architecture."""
        self._read.update(names)

    def finish(self, remarks: bool = True, may_matter: frozenset[str] = MAY_MATTER) -> None:
        """Refuse what nobody has read and may change numbers, and warn of names that no software knows.

        Parameters
        ----------
        remarks : bool
            Whether there can be such names; else every field that nobody has read is refused.
        may_matter : frozenset of str
            The names that some software reads.

        Raises
        ------
        CheckpointError
            If there are fields that may change numbers.
        """
        refused, place = [], self._place
        for name, value in self.fields.items():
            if name in self._read or name in HARMLESS or (value is None and name not in MATTERS_WHEN_NULL):
                continue
            if remarks and name not in may_matter and not (place and isinstance(value, dict)):
                self._remarks.append(place + name)
            elif name not in NEUTRAL or value != NEUTRAL[name] or type(value) is not type(NEUTRAL[name]):
                refused.append(name)
        if refused:
            named = ", ".join(f"{quoted(name)}: {quoted(self.fields[name])}" for name in refused[:5])
            more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
            raise CheckpointError(
                f"{self.source}: fields that wkvnp does not know may change the numbers: {named}{more}; "
                f"load(..., ignore=[{quoted(place + refused[0])}{', ...' if len(refused) > 1 else ''}]) computes as if "
                f"{'it was' if len(refused) == 1 else 'they were'} not there"
            )
        if self._remarks and not place:
            named, left = ", ".join(map(quoted, self._remarks[:20])), len(self._remarks) - 20
            warnings.warn(
                f"{self.source}: fields that no software is known to read have no effect: {named}"
                + (f" and {left} more" if left > 0 else ""),
                UnknownFieldWarning,
                stacklevel=2,
            )


def layer_types(settings: Settings) -> Any:
    """Return the field of that name, with today's words for those of older files."""
    kinds = settings.value("layer_types")
    if not isinstance(kinds, list):
        return kinds
    return [_OLD_TYPES.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]


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
        text = container.metadata["config"].encode("utf-8", "surrogatepass")
        return parse_object(text, source, infinite=True), source
    file = container.path.parent / "config.json"
    if container.format in ("safetensors", "torch-zip") and file.is_file():
        return parse_object(bytes(map_file(file, _LARGEST_FILE)[:]), str(file), infinite=True), str(file)
    return None


def without(fields: Mapping[str, Any], names: Iterable[str], source: str) -> dict[str, Any]:
    """Return fields without some, of which one inside another field has the name of that field and a dot in front.

    Raises
    ------
    ArgumentError
        If there is no such field.
    """
    kept = dict(fields)
    for name in names:
        if not _dropped(kept, name):
            raise ArgumentError(f"load: ignore must name fields of {source}; it has no {quoted(name)}")
    return kept


def _dropped(fields: dict[str, Any], name: str) -> bool:
    """Take a field away, and say whether it was there; what is inside a field is copied first."""
    outer, _, inner = name.partition(".")
    if name in fields:
        del fields[name]
        return True
    if not inner or not isinstance(fields.get(outer), dict):
        return False
    fields[outer] = dict(fields[outer])
    return _dropped(fields[outer], inner)


def as_metadata(architecture: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a safetensors file that carries fields."""
    return {"architecture": architecture, "config": json.dumps(dict(fields), sort_keys=True)}
