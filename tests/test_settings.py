"""Numbers in configurations that are too large or too small to compute with are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from wkvnp.checkpoints.tensors import Container
from wkvnp.errors import CheckpointError
from wkvnp.models import mamba2
from wkvnp.models.rotary_scaling import rotary_of
from wkvnp.models.settings import Settings, fields_of

HUGE = 10**400  # which no float holds


@pytest.mark.parametrize("value", [10**31, 1e31, 1e308, 1e-31, 1e-320, 0, -1, math.nan, math.inf, True, "1", [1]])
def test_numbers_that_nothing_can_be_computed_with(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"c: eps must be a number (above 0|from 1e-30 to 1e\+30); got "):
        Settings({"eps": value}, "c").number("eps")


@pytest.mark.parametrize("value", [1e-30, 1e-6, 1, 1e30])
def test_numbers_that_are_read(value: float) -> None:
    assert Settings({"eps": value}, "c").number("eps") == value


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    "fields",
    [
        {"partial_rotary_factor": 1e308},
        {"partial_rotary_factor": HUGE},
        {"rope_theta": HUGE},
        {"rope_scaling": YARN | {"beta_fast": 1e308}},
        {"rope_scaling": YARN | {"beta_slow": 1e-320}},
        {"rope_scaling": YARN | {"beta_fast": 1e-300, "beta_slow": 1e-310}},
        {"rope_scaling": YARN | {"factor": HUGE}},
        {"rope_scaling": YARN | {"mscale": HUGE, "mscale_all_dim": 1}},
        {"rope_scaling": {"rope_type": "linear", "factor": 1e-320}},
    ],
)
def test_rotations_that_cannot_be_computed(fields: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"must be|such that an even"):
        rotary_of(Settings({"max_position_embeddings": 64} | fields, "c"), 8, 1.0).rates()


@pytest.mark.parametrize("theta", [1e-30, 1 - 1e-16, 1 + 3e-16, 1e30])
@pytest.mark.parametrize("turns", [(1e-30, 1e30), (1e30, 1e-30), (1e-30, 1e-30), (1e30, 1e30)])
def test_rotations_at_the_ends_of_what_is_read(theta: float, turns: tuple[float, float]) -> None:
    scaling = YARN | {"beta_slow": turns[0], "beta_fast": turns[1], "original_max_position_embeddings": 1 << 40}
    assert rotary_of(Settings({"rope_theta": theta, "rope_scaling": scaling}, "c"), 8, 1.0).rates().shape == (4,)


@pytest.mark.parametrize("limits", [[0, HUGE], [HUGE, HUGE], [0.0, math.nan], [1, 0], [True, 2], "0"])
def test_steps_that_cannot_be_limited(limits: Any) -> None:
    with pytest.raises(CheckpointError, match="time_step_limit must be two numbers"):
        mamba2._limits(Settings({"time_step_limit": limits}, "c"))


def test_steps_without_an_upper_limit() -> None:
    for limits in ([0, math.inf], [0.0, {"__float__": "Infinity"}]):
        assert mamba2._limits(Settings({"time_step_limit": limits}, "c")) == (0.0, math.inf)


def test_characters_that_utf8_does_not_have_are_no_json() -> None:
    container = Container(Path("a"), "safetensors", {}, {"config": '{"model_type": "\ud800"}'})
    with pytest.raises(CheckpointError, match="a: config in the metadata: not valid JSON"):
        fields_of(container)
