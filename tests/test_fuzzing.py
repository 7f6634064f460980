"""Damaged files of every kind that is read without TensorFlow: a result or a clear error, and never a part of one.

`FUZZ_MUTATIONS=400 pytest tests/test_fuzzing.py` tries more of each kind; what failed names the numbers of its dice.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lite_files
import numpy as np
import onnx
import pytest
import safetensors.numpy
from mutations import damaged
from onnx import helper, numpy_helper

from exporter import plan, worker
from exporter.errors import UnsupportedError
from exporter.opening import Opening

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "25"))
# The errors that say what is wrong with a file; an InternalError would be a defect.
CLEAR = ("SourceError", "UnsupportedError", "TrustError", "UsageError")


def onnx_model() -> Any:
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="/block/head/MatMul"),
        helper.make_node("Relu", ["h"], ["y"], name="/block/act/Relu"),
    ]
    sides = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def write_onnx(folder: Path) -> str:
    onnx.save(onnx_model(), folder / "m.onnx")
    return "m.onnx"


def write_external(folder: Path) -> str:
    onnx.save_model(onnx_model(), folder / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    return "m.onnx"


def write_safetensors(folder: Path) -> str:
    arrays = {"block.0.weight": np.ones((3, 4), np.float32), "head.bias": np.zeros(7, np.float16)}
    safetensors.numpy.save_file(arrays, folder / "m.safetensors")
    return "m.safetensors"


def write_index(folder: Path) -> str:
    for name in ("a", "b"):
        safetensors.numpy.save_file({f"{name}.w": np.ones((3, 4), np.float32)}, folder / f"{name}.safetensors")
    places = {f"{name}.w": f"{name}.safetensors" for name in ("a", "b")}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return "model.safetensors.index.json"


def write_lite(make: Callable[[], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "m.tflite").write_bytes(make())
        return "m.tflite"

    return write


def write_web_graph(folder: Path) -> str:
    import web_files

    return web_files.write_graph(folder, web_files.graph_of(web_files.image), shard_nbytes=300).name


def write_web_layers(folder: Path) -> str:
    from test_tfjs_layers import functional, weights
    from web_files import write

    return write(folder, functional(), weights(), "layers-model", shard_nbytes=200).name


def write_checkpoint(folder: Path) -> str:
    from tensorflow_models import tf2_checkpoint

    tf2_checkpoint(folder)
    return next(path.name for path in folder.glob("*.index"))


def write_keras(suffix: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        import keras

        keras.utils.clear_session()
        stack = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential(stack, name="m")
        path = folder / f"m{suffix}"
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        return path.name

    return write


KINDS: dict[str, Callable[[Path], str]] = {
    "onnx": write_onnx,
    "onnx with external data": write_external,
    "safetensors": write_safetensors,
    "safetensors index": write_index,
    "tflite": write_lite(lite_files.network),
    "tflite with graphs inside": write_lite(lite_files.loop),
    "tflite, sparse": write_lite(lite_files.sparse),
    "tfjs graph": write_web_graph,
    "tfjs layers": write_web_layers,
    "checkpoint": write_checkpoint,
    "keras": write_keras(".keras"),
    "h5": write_keras(".h5"),
    "weights.h5": write_keras(".weights.h5"),
}


def needs_framework(opening: Opening) -> None:
    raise UnsupportedError("is not explained by its file", why="its framework is left out here")


def outcome(source: Path, output: Path) -> tuple[str, str]:
    """The type of the error, or `done`, and what it says."""
    options = plan.ExportOptions(formats=("parquet", "dot", "json"), output=str(output), stats=True)
    (job,) = plan.plan([str(source)], options)
    if isinstance(job, plan.Refusal):
        return type(job.error).__name__, str(job.error)
    found = worker.carry_out(job, worker.Reporter(io.StringIO()))
    return ("done", "") if found.error is None else (found.error["type"], found.error.get("trace", ""))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_answer(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opening, "open", needs_framework)
    sound, copy, output = tmp_path / "sound", tmp_path / "copy", tmp_path / "out"
    sound.mkdir()
    name = KINDS[kind](sound)
    assert outcome(sound / name, output)[0] in ("done", "UnsupportedError")
    met: Counter[str] = Counter()
    for number in range(MUTATIONS):
        dice = Random(f"{kind} {number}")
        for folder in (copy, output):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, copy)
        path = copy / name if dice.random() < 0.7 else dice.choice(sorted(copy.iterdir()))
        path.write_bytes(damaged(path, dice) if path.stat().st_size else b"x")
        found, text = outcome(copy / name, output)
        assert found == "done" or found in CLEAR, f"mutation {number} of {kind}, {path.name}: {found}\n{text}"
        left = [file for file in output.rglob("*") if file.is_file()] if output.exists() else []
        assert found == "done" or not left, f"mutation {number} of {kind}, {path.name}: {found} left {left}"
        met[found] += 1
    # Not all of it may have gone unnoticed.
    assert met["SourceError"] > 0, met
