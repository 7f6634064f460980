"""Branches and loops as TensorFlow 1 wrote them: switches and merges in the graph itself, with variables in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from exporting import export_here

from exporter.sources.graphs.graph_variables import make_hollow
from exporter.sources.graphs.hollow_graph import HOLLOW_OP

v1 = tf.compat.v1
# The second one takes the other branch.
INPUTS = [np.linspace(-1, 2, 9, dtype="float32").reshape(3, 3), np.full((3, 3), -0.5, "float32")]


def branch(x: Any) -> Any:
    weight, bias = v1.get_variable("weight", [3, 3]), v1.get_variable("bias", [3], use_resource=False)
    return v1.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, weight), lambda: x + bias)


def branch_in_branch(x: Any) -> Any:
    weight = v1.get_variable("weight", [3, 3])
    inner = lambda: v1.cond(tf.reduce_max(x) > 5, lambda: x * 0.5, lambda: tf.matmul(x, weight))  # noqa: E731
    return v1.cond(tf.reduce_sum(x) > 0, inner, lambda: -x)


def loop(x: Any) -> Any:
    weight = v1.get_variable("weight", [3, 3])
    return v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(tf.matmul(a, weight))), [0, x])[1]


def loop_until(x: Any) -> Any:
    return v1.while_loop(lambda a: tf.reduce_sum(a) < 100.0, lambda a: tf.abs(a) * 2 + 1, [x])


def branch_in_loop(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, v1.cond(tf.equal(i % 2, 0), lambda: a * 2, lambda: a - 1)

    return v1.while_loop(lambda i, a: i < 4, body, [0, x])[1]


def loop_in_branch(x: Any) -> Any:
    def doubled() -> Any:
        return v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * 2), [0, x])[1]

    return v1.cond(tf.reduce_sum(x) > 0, doubled, lambda: x)


def mapped(x: Any) -> Any:
    return v1.map_fn(lambda row: row * 2 + 1, x)


def loop_in_loop(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        added = v1.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, b + tf.cast(i, tf.float32)), [0, a])
        return i + 1, added[1]

    return v1.while_loop(lambda i, a: i < 3, body, [0, x])[1]


@pytest.fixture(autouse=True)
def _as_tensorflow_1() -> Iterator[None]:
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def frozen(session: Any, folder: Path) -> Path:
    graph = v1.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), ["y"])
    path = folder / "frozen.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def meta(session: Any, folder: Path) -> Path:
    v1.train.Saver().save(session, str(folder / "m.ckpt"))
    return folder / "m.ckpt.meta"


def saved_model(session: Any, folder: Path) -> Path:
    ends = ({name: session.graph.get_tensor_by_name(f"{name}:0")} for name in "xy")
    builder = v1.saved_model.Builder(str(folder / "saved"))
    signature = v1.saved_model.signature_def_utils.predict_signature_def(*ends)
    builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
    builder.save()
    return folder / "saved"


def saved(function: Callable[[Any], Any], save: Callable[[Any, Path], Path], folder: Path) -> tuple[Path, list[Any]]:
    """The file, and what TensorFlow makes of INPUTS."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(1)
        x = v1.placeholder(tf.float32, [3, 3], name="x")
        y = tf.identity(function(x), name="y")
        session.run(v1.global_variables_initializer())
        return save(session, folder), [session.run(y, {x: array}) for array in INPUTS]


def ends(save: Callable[[Any, Path], Path]) -> dict[str, Any]:
    return {} if save is saved_model else {"inputs": ("x:0",), "outputs": ("y:0",)}


SLOW = pytest.mark.slow
CASES = [
    *(pytest.param(each, save, marks=SLOW) for each in (branch, loop) for save in (frozen, meta, saved_model)),
    *(
        pytest.param(function, frozen, marks=SLOW)
        for function in (branch_in_branch, loop_until, branch_in_loop, loop_in_branch, mapped)
    ),
]


@pytest.mark.parametrize(("function", "save"), CASES)
def test_it_computes_the_same(
    tmp_path: Path, function: Callable[[Any], Any], save: Callable[[Any, Path], Path]
) -> None:
    source, wanted = saved(function, save, tmp_path)
    outcome = export_here(source, tmp_path / "out", verify=False, **ends(save))
    assert outcome.error is None, outcome.error
    session = onnxruntime.InferenceSession(str(Path(outcome.output_path) / "model.onnx"))
    for array, theirs in zip(INPUTS, wanted, strict=True):
        (ours,) = session.run(None, {"x": array})
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [branch, loop])
def test_variables_of_branches_and_loops_become_tensors(function: Callable[[Any], Any]) -> None:
    with tf.Graph().as_default() as graph:
        tf.identity(function(v1.placeholder(tf.float32, [3, 3], name="x")), name="y")
    graph_def = graph.as_graph_def()
    variables = {node.name for node in graph_def.node if node.op in ("VarHandleOp", "VariableV2")}
    assert variables
    kept = v1.graph_util.extract_sub_graph(graph_def, ["y"])
    make_hollow(kept)
    with tf.Graph().as_default() as hollow:
        tf.import_graph_def(kept, name="")
    ops = {operation.name: operation.type for operation in hollow.get_operations()}
    assert {ops[name] for name in variables} == {HOLLOW_OP}
    assert not {"ReadVariableOp", "VarHandleOp"} & set(ops.values())


@SLOW
def test_a_loop_in_a_loop_is_refused_by_name_and_described(tmp_path: Path) -> None:
    source, _ = saved(loop_in_loop, frozen, tmp_path)
    refused = export_here(source, tmp_path / "out", verify=False, **ends(frozen))
    assert refused.error is not None
    assert refused.error["type"] == "UnsupportedError"
    assert "LoopCond" in refused.error["what"]
    outcome = export_here(source, tmp_path / "out", verify=False, formats=("parquet",), **ends(frozen))
    assert outcome.error is None, outcome.error
    assert len(pq.read_table(Path(outcome.output_path) / "layers.parquet")) > 0
