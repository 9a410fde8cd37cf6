"""Write the names of the fields of configuration classes, and defaults: ``python tests/golden/make_config_fields.py``.

Needs torch and transformers (5.24 was used), which the tests do not.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import transformers
from transformers import GenerationConfig, PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_next", "mamba", "falcon_mamba", "mamba2", "rwkv")


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """Return what the fields of a class are where a configuration does not say; tuples become text."""
    found = {field.name: field.default for field in dataclasses.fields(kind)}
    return {
        name: value if value is None or isinstance(value, int | float | str) else repr(value)
        for name, value in found.items()
    }


def fields_of(kind: type[Any]) -> set[str]:
    """Return the names that a class declares, and its other names for them."""
    return {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)


if __name__ == "__main__":
    every = fields_of(PreTrainedConfig)
    own = {name: fields_of(CONFIG_MAPPING[name]) - every for name in TYPES}
    text = set().union(*(fields_of(CONFIG_MAPPING[name]) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    names = {
        "every class": every,
        "generation": set(GenerationConfig._get_default_generation_params()),
        "rope": set(RopeParameters.__annotations__),
        **own,
        "other models of text": text - every - set().union(*own.values()),
    }
    written: dict[str, Any] = {"transformers": transformers.__version__}
    written |= {key: " ".join(sorted(part)) for key, part in names.items()}
    for name in TYPES:
        known = defaults_of(CONFIG_MAPPING[name])
        written[name] = {field: known.get(field) for field in sorted(own[name])}
    Path(__file__).with_name("config_fields.json").write_text(json.dumps(written, indent=0) + "\n")
