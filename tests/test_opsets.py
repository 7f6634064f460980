"""Every opset that `--opset` accepts, on models that between them use what differs between opsets."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import onnx
import pytest
from conversion import convert, filled, random_inputs, run_keras, run_onnx
from models import MODELS
from test_conversion import check_layers, check_names, check_values

pytestmark = pytest.mark.slow

# Reductions and `Squeeze` take their axes as inputs from 13 and 18 on, `Resize` has axes from 18 on, `Pad` from 18 on.
TINY = (
    "residual",
    "folded_conv1d",
    "activation_gelu",
    "attention",
    "lstm_bidirectional",
    "group_norm",
    "resize_bilinear",
    "pad_reflect",
    "loop",
)


@pytest.mark.parametrize("opset", range(13, 19))
@pytest.mark.parametrize("name", TINY)
def test_opset(name: str, opset: int) -> None:
    keras.utils.clear_session(free_memory=False)
    real = filled(MODELS[name]())
    converted = convert(MODELS[name], real, opset=opset)
    assert {entry.domain: entry.version for entry in converted.model.opset_import}[""] == opset
    onnx.checker.check_model(converted.model, full_check=True)
    check_names(converted)
    check_layers(converted)
    arrays = random_inputs(real.inputs)
    check_values(run_keras(real, arrays), run_onnx(converted, arrays), 1e-4)
