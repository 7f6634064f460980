"""A covering subset of `keras.applications`: the command itself, and what its files say.

Each architecture is here for something that only it has; `benchmarks/applications.py` runs all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import onnx
import pyarrow.parquet as pq
import pytest
from conversion import convert, filled, random_inputs, run_keras, run_onnx
from test_conversion import check_layers, check_names, check_values

pytestmark = pytest.mark.slow

# The numbers that the models' documentation and papers give, https://keras.io/api/applications/ rounds them.
PUBLISHED_PARAMS = {
    "ConvNeXtTiny": 28_589_128,
    "DenseNet121": 8_062_504,
    "EfficientNetB0": 5_330_571,
    "InceptionV3": 23_851_784,
    "MobileNetV2": 3_538_984,
    "MobileNetV3Small": 2_554_968,
    "NASNetMobile": 5_326_716,
    "ResNet50V2": 25_613_800,
    "Xception": 22_910_480,
}
# Where every norm directly follows a convolution, nothing of them is left.
ALL_NORMS_FOLDED = ("InceptionV3", "MobileNetV2", "Xception")


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "NASNetMobile", "ResNet50V2"])
def test_the_command(name: str, tmp_path: Path) -> None:
    flags = ["--to", "onnx,parquet", "-o", str(tmp_path), "--weights", "random", "-q"]
    done = subprocess.run([sys.executable, "-m", "exporter", name, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / name.lower()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["verification"]["status"] == "passed"
    assert manifest["weights"] == "random (seed 0)"
    assert manifest["memory"]["peak_rss_bytes"] <= manifest["memory"]["bound_bytes"]
    params = pq.read_table(folder / "layers.parquet", columns=["params"]).column("params").to_pylist()
    assert sum(params) == manifest["params"] == PUBLISHED_PARAMS[name]
    layers = pq.read_table(folder / "nodes.parquet", columns=["layer"]).column("layer").to_pylist()
    assert sum(layer is not None for layer in layers) >= 0.99 * len(layers) > 0
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", PUBLISHED_PARAMS)
def test_values_like_those_of_a_trained_model(name: str) -> None:
    """Norms that do something and outputs that differ, which random initial values do not give."""

    def build() -> keras.Model:
        return getattr(keras.applications, name)(weights=None, classifier_activation=None)

    keras.utils.clear_session(free_memory=True)
    real = filled(build())
    converted = convert(build, real)
    check_names(converted)
    check_layers(converted)
    assert sum(layer.params for layer in converted.graph.layers) == real.count_params() == PUBLISHED_PARAMS[name]
    arrays = random_inputs(real.inputs, free=96)
    (expected,) = run_keras(real, arrays)
    assert expected.std() > 1e-2
    check_values([expected], run_onnx(converted, arrays), 1e-3)
    assert "BatchNormalization" not in converted.ops
    assert "Mul" not in converted.ops or name not in ALL_NORMS_FOLDED
