"""Every opset that `--opset` accepts, on models that between them use what differs between opsets."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import onnx
import onnxruntime
import pytest
from conversion import convert, filled, random_inputs, run_keras, run_onnx
from models import MODELS
from onnx import TensorProto, helper
from test_conversion import check_layers, check_names, check_values

from exporter.defaults import SUPPORTED_OPSETS
from exporter.sources.conversion import opsets

# Reductions and `Squeeze` take their axes as inputs from 13 and 18 on, `Resize` has axes from 18 on, `Pad` from 18 on.
# Above 18 the graph is that of 18 but for norms and `Gelu`; each of these opsets has a new version of some op in it.
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


FEW = ("residual", "transformer_block", "lstm_bidirectional", "layer_norm_rms", "loop")
NEWEST = SUPPORTED_OPSETS[-1]
CASES = [
    (name, opset)
    for opset in SUPPORTED_OPSETS
    for name in (TINY if opset <= opsets.TF2ONNX_OPSET or opset == NEWEST else FEW)
]


def runs(opset: int) -> bool:
    """Whether the installed onnx has released the opset and the installed ONNX Runtime supports it."""
    if opset > onnx.defs.onnx_opset_version():
        return False
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=opsets.ir_version(opset))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        return False
    return True


def test_the_newest_opset_is_the_newest_that_both_packages_support() -> None:
    assert runs(NEWEST)
    assert not runs(NEWEST + 1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "opset"), CASES)
def test_opset(name: str, opset: int) -> None:
    keras.utils.clear_session(free_memory=False)
    real = filled(MODELS[name]())
    converted = convert(MODELS[name], real, opset=opset)
    assert {entry.domain: entry.version for entry in converted.model.opset_import}[""] == opset
    assert converted.model.ir_version == opsets.ir_version(opset)
    onnx.checker.check_model(converted.model, full_check=True)
    check_names(converted)
    check_layers(converted)
    arrays = random_inputs(real.inputs)
    check_values(run_keras(real, arrays), run_onnx(converted, arrays), 1e-4)
