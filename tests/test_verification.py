"""The comparison with the source: what passes, what does not, and that a skipped one never reads as passed."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from exporting import command, export_here, job_for, leftovers, manifest
from keras import layers

from exporter import memory
from exporter.records import Job, Layer, ModelGraph, TensorSpec, Verification
from exporter.verification import attempts, children, comparison, sample_inputs, tolerances, verifying

INF, NAN = math.inf, math.nan


def arrays(*values: Any) -> list[np.ndarray]:
    return [np.asarray(value) for value in values]


# Source, ONNX Runtime, atol, rtol → status, largest difference, what may be.
TABLE: list[tuple[str, Any, Any, float, float, str, float, float]] = [
    ("equal", [1.0, 2.0], [1.0, 2.0], 0, 0, "passed", 0, 0),
    ("within the relative limit", [100.0, 0.0], [100.0, 0.05], 0, 1e-3, "passed", 0.05, 0.1),
    ("above it", [100.0, 0.0], [100.0, 0.2], 0, 1e-3, "mismatch", 0.2, 0.1),
    ("within the absolute limit", [0.0, 0.0], [1e-7, 0.0], 1e-6, 1e-3, "passed", 1e-7, 1e-6),
    ("zeros against more than that", [0.0, 0.0], [1e-5, 0.0], 1e-6, 1e-3, "mismatch", 1e-5, 1e-6),
    ("NaN in the same place", [NAN, 2.0], [NAN, 2.0], 0, 0, "passed", 0, 0),
    ("NaN in one", [1.0, 2.0], [NAN, 2.0], 1, 1, "mismatch", comparison.LARGEST, 3),
    ("NaN in the other", [NAN, 2.0], [1.0, 2.0], 1, 1, "mismatch", comparison.LARGEST, 3),
    ("the same infinity", [INF, 2.0], [INF, 2.0], 0, 0, "passed", 0, 0),
    ("opposite infinities", [INF, 2.0], [-INF, 2.0], 1, 1, "mismatch", comparison.LARGEST, 3),
    ("infinity in one", [1.0, 2.0], [INF, 2.0], 1, 1, "mismatch", comparison.LARGEST, 3),
    ("whole numbers", [3, 4], [3, 4], 0, 0, "passed", 0, 0),
    ("other whole numbers", [3, 4], [3, 5], 0, 0.1, "mismatch", 1, 0.4),
    ("booleans", [True, False], [True, True], 0, 0.5, "mismatch", 1, 0.5),
    ("nothing at all", np.zeros((0, 3)), np.zeros((0, 3)), 0, 0, "passed", 0, 0),
    ("a scalar", 2.0, 2.5, 0, 0.1, "mismatch", 0.5, 0.2),
    ("numbers near the end", [1e308], [-1e308], 0, 1, "mismatch", comparison.LARGEST, comparison.LARGEST / 2),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_compare(row: tuple[str, Any, Any, float, float, str, float, float]) -> None:
    _, expected, found, atol, rtol, status, difference, limit = row
    result = comparison.compare(["y"], arrays(expected), arrays(found), atol, rtol)
    (output,) = result.outputs
    assert result.status == status
    assert output.max_abs == pytest.approx(difference)
    assert output.limit == pytest.approx(limit)
    assert result.reason or status == "passed"
    # What goes into the manifest must be JSON for everybody.
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_compare_looks_at_every_output() -> None:
    result = comparison.compare(["a", "b"], arrays([1.0], [1.0]), arrays([1.0], [2.0]), 0, 0.1)
    assert result.status == "mismatch"
    assert result.reason == "b differs by 1, allowed is 0.1"
    assert [row.output for row in result.outputs] == ["a", "b"]


@pytest.mark.parametrize(
    ("expected", "found"),
    [([[1.0, 2.0]], [[1.0], [2.0]]), ([1.0], 1.0), ([np.zeros(0)], [np.zeros((0, 1))])],
)
def test_other_shapes_are_a_mismatch(expected: Any, found: Any) -> None:
    result = comparison.compare(["y"], arrays(expected), arrays(found), 1e9, 1e9)
    assert result.status == "mismatch"
    assert "shapes" in result.reason


def test_a_missing_output_is_a_mismatch() -> None:
    assert comparison.compare(["y"], arrays([1.0], [1.0]), arrays([1.0]), 1, 1).status == "mismatch"


def test_a_constant_output_is_told() -> None:
    result = comparison.compare(["y"], arrays([1.0, 1.0]), arrays([1.0, 1.0]), 0, 0)
    assert (result.status, result.reason) == ("passed", "the source's output hardly varies, so this says little")


CALM, WILD = [1.0, 2.0], [5.0, 9.0]


@pytest.mark.parametrize(
    ("found", "moved", "status", "reason"),
    [
        ([CALM, CALM], [CALM, CALM], "passed", ""),
        ([CALM, WILD], [CALM, CALM], "mismatch", "y differs by 7, allowed is 0.2"),
        ([CALM, WILD], [CALM, WILD], "passed", "1 of 2 samples left out"),
        ([WILD, WILD], [CALM, WILD], "mismatch", "y differs by 7"),
        ([CALM, CALM], [WILD, WILD], "skipped", "nothing can be concluded"),
        ([WILD, WILD], [WILD, WILD], "skipped", "nothing can be concluded"),
    ],
)
def test_samples_in_which_the_source_is_chaotic_say_nothing(found: Any, moved: Any, status: str, reason: str) -> None:
    result = comparison.judge(["y"], arrays([CALM, CALM]), arrays(found), arrays(moved), 0, 0.1)
    assert result.status == status
    assert reason in result.reason


def test_judge_takes_outputs_without_a_common_batch_as_one_sample() -> None:
    expected, moved = arrays([1.0, 2.0], [1.0]), arrays([1.0, 2.0], [5.0])
    assert comparison.judge(["a", "b"], expected, arrays([1.0, 2.0], [9.0]), moved, 0, 0.01).status == "skipped"


def test_each_sample_has_a_limit_of_its_own() -> None:
    expected, found = arrays([[1e-3, 0.0], [1.0, 0.0]]), arrays([[1e-3, 1e-4], [1.0, 1e-4]])
    assert comparison.compare(["y"], expected, found, 0, 1e-3).status == "passed"
    verdict = comparison.compare(["y"], expected, found, 0, 1e-3, samples=2)
    assert verdict.status == "mismatch"
    assert (verdict.outputs[0].max_abs, verdict.outputs[0].limit) == pytest.approx((1e-4, 1e-6))
    assert verdict.outputs[0].shape == (2, 2)


def test_perturbed_inputs_differ_by_one_part_in_a_million() -> None:
    before = arrays(np.float32([1, -3]), np.int32([1, 2]), np.array([True]))
    after = sample_inputs.perturbed(before)
    assert [array.dtype for array in after] == [array.dtype for array in before]
    assert np.abs(after[0] / before[0] - 1).max() == pytest.approx(2.0**-20, rel=0.1)
    assert after[1].tolist() == [1, 2]


def layer(dtype: str, shape: tuple[int | None, ...], config: str = "{}") -> Layer:
    outputs = (TensorSpec("y", shape, dtype),)
    return Layer(0, "l", "L", "l", 0, None, True, None, outputs, 0, 0, 0, 0, 1, (), config)


def graph(*rows: Layer) -> ModelGraph:
    return ModelGraph("m", (TensorSpec("x", (None, 4), "float32"),), (), rows, (), ())


JOB = Job("m.keras", "keras_archive", "m", "", ("onnx",), "", "")


def test_half_precision_has_a_wider_limit() -> None:
    assert tolerances.relative(JOB, graph(layer("float32", (1,)))) == JOB.rtol
    assert tolerances.relative(JOB, graph(layer("float32", (1,)), layer("float16", (1,)))) == 2e-2
    assert tolerances.relative(JOB, graph(layer("bfloat16", (1,)))) == 1e-1
    assert tolerances.relative(dataclasses.replace(JOB, rtol=0.5), graph(layer("bfloat16", (1,)))) == 0.5


def test_inputs_are_seeded_and_fit() -> None:
    specs = [
        TensorSpec("image", (2, 4, 4, 3), "float32"),
        TensorSpec("words", (2, 7), "int32"),
        TensorSpec("mask", (2, 7), "bool"),
        TensorSpec("half", (1, 3), "float16"),
    ]
    first, again = (sample_inputs.make_inputs(specs, 5, seed=3) for _ in range(2))
    other = sample_inputs.make_inputs(specs, 5, seed=4)
    for spec, one, two, three in zip(specs, first, again, other, strict=True):
        assert (one.shape, one.dtype) == (spec.shape, np.dtype(spec.dtype))
        assert one.tobytes() == two.tobytes() != three.tobytes()
    assert set(np.unique(first[1])) <= set(range(5))
    # Saturating activations and overflows show in the second sample only.
    assert np.abs(first[0][1]).max() > 8 * np.abs(first[0][0]).max()


def test_dynamic_dimensions_get_sizes() -> None:
    assert sample_inputs.concrete(TensorSpec("x", (None, None, None, 3), "float32")).shape == (2, 128, 128, 3)
    assert sample_inputs.concrete(TensorSpec("x", (None, None, 8), "float32")).shape == (2, 16, 8)
    assert sample_inputs.concrete(TensorSpec("x", (1, 5), "float32")).shape == (1, 5)


def test_indices_stay_below_the_smallest_table() -> None:
    tables = [layer("float32", (1,), json.dumps({"input_dim": size})) for size in (100, 7)]
    assert sample_inputs.index_limit(graph(*tables)) == 7
    assert sample_inputs.index_limit(graph(layer("float32", (1,)))) == 2


# Skipped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["machine", "--max-memory"])
def test_what_does_not_fit_is_skipped_and_says_what_it_needs(
    cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "run_children", lambda *_: pytest.fail("it was started"))
    if cause == "machine":
        monkeypatch.setattr(memory, "available_bytes", lambda: 500_000_000)
    job = dataclasses.replace(JOB, max_memory_bytes=10**6 if cause != "machine" else None)
    big = graph(layer("float32", (None, 1000, 1000)))
    found = verifying.Comparison(job, big, big.inputs, tmp_path / "model.onnx", tmp_path).verdict()
    assert found.status == "skipped"
    assert found.needed_bytes == 10**9 + 8 * 4 * 2 * 10**6
    assert "it would need about 1.06 GB, and" in found.reason
    assert "are free" in found.reason


@pytest.mark.parametrize("spec", [TensorSpec("x", (None, 1), "string"), TensorSpec("x", None, "float32")])
def test_inputs_that_cannot_be_made_up(spec: TensorSpec, tmp_path: Path) -> None:
    found = verifying.Comparison(JOB, graph(), [spec], tmp_path / "model.onnx", tmp_path).verdict()
    assert (found.status, found.needed_bytes) == ("skipped", 10**9)


class Sleeper:
    """An understudy that only says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    def start(self, arguments: Sequence[str], log: Path) -> None:
        self.asked.append(arguments)


@pytest.mark.parametrize(
    ("dtype", "beside_bytes", "begins"),
    [("float32", 0, True), ("float32", 10**18, False), ("string", 0, False), ("int64", 0, False)],
)
def test_the_source_runs_beside_the_conversion(tmp_path: Path, dtype: str, beside_bytes: int, begins: bool) -> None:
    """Where there is room, and where the file need not say first which texts and numbers it takes."""
    sleeper = Sleeper()
    spec = TensorSpec("x", (None, 3), dtype)
    understudies: Any = {"reference": sleeper}
    made = verifying.Comparison(JOB, graph(), [spec], tmp_path / "model.onnx", tmp_path, understudies)
    made.begin(beside_bytes)
    assert [role for role, _ in sleeper.asked] == ["reference"] * begins
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["request.json"] * begins


@pytest.mark.parametrize(
    ("role", "status", "log", "verdict", "fragment"),
    [
        ("reference", 1, "Traceback\nValueError: no\n\n", "skipped", "could not be run for comparison: ValueError: no"),
        ("reference", 1, "ValueError: no\n  * inputs=tf.Tensor(…)\n", "skipped", "for comparison: ValueError: no"),
        ("reference", -9, "", "skipped", "killed by signal 9, probably out of memory"),
        ("reference", 1, "", "skipped", "it printed nothing"),
        ("runtime", 1, "x\nRuntimeError: bad node", "mismatch", "cannot run the file: RuntimeError: bad node"),
        ("runtime", -9, "", "skipped", "killed by signal 9"),
        ("runtime", 1, "RuntimeException: std::bad_alloc", "skipped", "bad_alloc"),
    ],
)
def test_children_that_fail(role: str, status: int, log: str, verdict: str, fragment: str) -> None:
    found = children._failed(role, status, log)
    assert found.status == verdict
    assert fragment in found.reason


def spec(*shape: int | None) -> TensorSpec:
    return TensorSpec("x", shape, "float32")


def takes(*sizes: int, empty_up_to: int = 0) -> Any:
    """A source that raises below the first of `sizes`, and has empty outputs up to `empty_up_to`."""

    def run(inputs: Sequence[TensorSpec]) -> list[np.ndarray]:
        size = (inputs[0].shape or ())[1] or 0
        if size < sizes[0]:
            raise ValueError(f"{size} is too short")
        return [np.zeros(0 if size <= empty_up_to else 3)]

    return run


def test_larger_inputs_are_tried_until_the_source_takes_them() -> None:
    choices = [(spec(2, size, 4),) for size in (16, 256, 4096)]
    assert attempts.first_that_runs(choices, takes(1), (ValueError,))[0] == 0
    assert attempts.first_that_runs(choices, takes(200), (ValueError,))[0] == 1
    assert attempts.first_that_runs(choices, takes(1, empty_up_to=256), (ValueError,))[0] == 2
    assert attempts.first_that_runs(choices, takes(20, empty_up_to=9999), (ValueError,))[0] == 1, "empty is all it has"
    with pytest.raises(ValueError, match="16 is too short"):
        attempts.first_that_runs(choices, takes(9999), (ValueError,))
    with pytest.raises(ValueError, match="16 is too short"):
        attempts.first_that_runs(choices, takes(20), (KeyError,))


def test_larger_inputs_are_there_where_sizes_are_open_and_memory_is(tmp_path: Path) -> None:
    free = verifying.Comparison(JOB, graph(), [spec(None, None, 4)], tmp_path / "m.onnx", tmp_path)
    assert [inputs[0].shape for inputs in free._request.larger] == [(2, 256, 4), (2, 4096, 4), (2, 16384, 4)]
    image = verifying.Comparison(JOB, graph(), [spec(None, None, None, 3)], tmp_path / "m.onnx", tmp_path)
    assert [inputs[0].shape for inputs in image._request.larger] == [(2, 256, 256, 3), (2, 512, 512, 3)]
    fixed = verifying.Comparison(JOB, graph(), [spec(None, 16, 4)], tmp_path / "m.onnx", tmp_path)
    assert fixed._request.larger == ()
    small = dataclasses.replace(JOB, max_memory_bytes=1)
    assert verifying.Comparison(small, graph(), [spec(None, None)], tmp_path / "m.onnx", tmp_path)._request.larger == ()


def test_what_a_source_does_not_take_is_said_in_plain_words() -> None:
    message = (
        "Exception when calling Conv1D.call().\n\n\x1b[1m{{node x}} size is negative\x1b[0m\n\nArguments received by x"
    )
    choices = [(spec(2, 16, 4),), (spec(2, 4096, 4),)]
    said = attempts.sentence(ValueError(f"{message}: tf.Tensor(shape=())"), choices)
    assert (
        "on inputs of 2×16×4 and 2×4096×4: ValueError: Exception when calling Conv1D.call(). size is negative;" in said
    )
    assert said.endswith("--input-shape chooses other sizes than these")
    assert "tf.Tensor" not in said
    assert attempts.sentence(ValueError("no"), choices[:1]).endswith("on inputs of 2×16×4: ValueError: no")


@pytest.mark.slow
def test_a_model_that_crops_more_than_the_usual_length_is_compared(tmp_path: Path) -> None:
    x = keras.Input((None, 4), name="sequence")
    y = layers.Cropping1D(20)(layers.Conv1D(4, 11, name="conv")(x))
    keras.Model(x, layers.Conv1D(3, 5, name="head")(y)).save(tmp_path / "m.keras")
    found = export_here(tmp_path / "m.keras", tmp_path / "out").verification
    assert found is not None
    assert found.status == "passed", found.reason
    assert [output.shape for output in found.outputs] == [(2, 202, 3)]


# On real files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.clear_session()
    x = keras.Input((8, 8, 3), name="image")
    y = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(x))
    y = layers.Dense(3, name="head")(layers.Flatten()(y))
    path = tmp_path_factory.mktemp("models") / "m.keras"
    keras.Model(x, y).save(path)
    return path


@pytest.fixture(scope="module")
def exported(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, ModelGraph, Path]:
    """A finished export and what is needed to verify it again."""
    output = tmp_path_factory.mktemp("out")
    outcome = export_here(archive, output)
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"
    found = ModelGraph("m", (TensorSpec("image", (None, 8, 8, 3), "float32"),), (), (), (), ())
    return job_for(archive, output), found, output / "m" / "model.onnx"


def verify_in_children(exported: tuple[Job, ModelGraph, Path], folder: Path, change: Any = None) -> Verification:
    job, found, path = exported
    model = onnx.load(str(path))
    if change:
        change(model)
    onnx.save(model, str(folder / "model.onnx"))
    return verifying.Comparison(job, found, found.inputs, folder / "model.onnx", folder).verdict()


@pytest.mark.slow
def test_the_children_agree(exported: tuple[Job, ModelGraph, Path], tmp_path: Path) -> None:
    found = verify_in_children(exported, tmp_path)
    assert (found.status, found.reason) == ("passed", "")
    (output,) = found.outputs
    assert (output.output, output.shape) == ("head", (2, 3))
    assert 0 < output.max_abs < output.limit
    assert found.seconds > 0
    assert found.peak_rss_bytes > 300_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def flip_a_weight(model: onnx.ModelProto) -> None:
    (kernel,) = [proto for proto in model.graph.initializer if proto.name == "head/kernel"]
    array = onnx.numpy_helper.to_array(kernel).copy()
    array[5, 1] += 1
    kernel.CopyFrom(onnx.numpy_helper.from_array(array, kernel.name))


@pytest.mark.slow
def test_one_changed_weight_is_a_mismatch(exported: tuple[Job, ModelGraph, Path], tmp_path: Path) -> None:
    found = verify_in_children(exported, tmp_path, flip_a_weight)
    assert found.status == "mismatch"
    assert found.reason.startswith("head differs by ")


def break_a_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOp"


@pytest.mark.slow
def test_a_file_that_onnx_runtime_refuses_is_a_mismatch(exported: tuple[Job, ModelGraph, Path], tmp_path: Path) -> None:
    found = verify_in_children(exported, tmp_path, break_a_node)
    assert found.status == "mismatch"
    assert "ONNX Runtime cannot run the file" in found.reason
    assert "NoSuchOp" in found.reason
    assert str(tmp_path) not in found.reason


@pytest.mark.slow
def test_a_source_that_does_not_run_is_skipped(exported: tuple[Job, ModelGraph, Path], tmp_path: Path) -> None:
    job, found, path = exported
    lost = dataclasses.replace(job, source=str(tmp_path / "lost.keras"))
    result = verify_in_children((lost, found, path), tmp_path)
    assert result.status == "skipped"
    assert "the source could not be run for comparison: FileNotFoundError" in result.reason
    assert str(tmp_path) not in result.reason


# The worker with a conversion that is wrong, which no input can bring about.
BROKEN_WORKER = """
    import sys
    import numpy as np
    import exporter.sources.conversion.onnx_structure as structure
    from exporter import worker
    from exporter.lazy import LazyArray

    original = structure.optimise

    def corrupt(model, weights, opset):
        folded = original(model, weights, opset)
        name, array = next((n, a) for n, a in folded.items() if a.ndim == 4)
        make = array.real
        return folded | {name: LazyArray(array.shape, array.dtype, lambda: -make(), array.origins, "folded")}

    structure.optimise = corrupt
    worker.main(*sys.argv[1:])
"""
DRIVER = """
    import functools, sys
    from exporter import cli, supervisor
    from exporter.child_process import spawn_worker
    spawn = functools.partial(spawn_worker, command=[sys.executable, "broken_worker.py"])
    raise SystemExit(cli.main(sys.argv[1:], functools.partial(supervisor.run, spawn=spawn)))
"""


@pytest.mark.slow
def test_a_mismatch_keeps_the_files_marks_the_receipt_and_exits_with_3(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_worker.py").write_text(textwrap.dedent(BROKEN_WORKER))
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    result = command([archive], cwd=tmp_path, module="driver")
    assert result.status == 3, result.text
    assert "the ONNX file and its source disagree: head (" in result.err
    assert "MISMATCH" in result.out
    assert "passed" not in result.text
    folder = tmp_path / "outputs" / "m"
    assert (folder / "model.onnx").exists()
    assert manifest(folder)["verification"]["status"] == "mismatch"
    assert leftovers(tmp_path) == []
    # The next run does not take it for done.
    again = command([archive], cwd=tmp_path)
    assert again.status == 0, again.text
    assert manifest(folder)["verification"]["status"] == "passed"
