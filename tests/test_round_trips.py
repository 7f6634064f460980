"""Random small models: ONNX Runtime computes what Keras computes, and the description adds up.

A failure prints the `Recipe` of the model. `build(recipe)` in `recipes.py` makes it again.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
from collections.abc import Iterator

import keras
import onnx
import pytest
from conversion import convert, filled, random_inputs, run_keras, run_onnx
from hypothesis import HealthCheck, given, settings
from recipes import Recipe, build, recipes
from test_conversion import check_layers, check_names, check_values

TOLERANCE = 1e-4
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check(recipe: Recipe) -> None:
    keras.utils.clear_session(free_memory=False)
    real = filled(build(recipe))
    converted = convert(lambda: build(recipe), real)
    onnx.checker.check_model(converted.model, full_check=True)
    check_names(converted)
    check_layers(converted)
    assert sum(layer.params for layer in converted.graph.layers) == real.count_params()
    # An `Identity` gives the value of another layer the name of an output, and is of no layer.
    assert [node for node in converted.structure.nodes if node.layer is None and node.op_type != "Identity"] == []
    arrays = random_inputs(real.inputs)
    check_values(run_keras(real, arrays), run_onnx(converted, arrays), TOLERANCE)


@settings(REPEATABLE, max_examples=12)
@given(recipes())
@pytest.mark.slow
def test_round_trip(recipe: Recipe) -> None:
    check(recipe)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=150)
@given(recipes(5))
def test_many_round_trips(recipe: Recipe) -> None:
    check(recipe)
