"""SavedModels, frozen graphs and .meta files: what is exported computes what TensorFlow does, and rows are right."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_models
from exporting import REPOSITORY, export_here, job_for
from google.protobuf import text_format

from exporter import cli
from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.records import Job, Outcome
from exporter.sources.detection import detect
from exporter.sources.graphs import graph_def, saved_model
from exporter.sources.graphs.graph_names import namespaces
from exporter.sources.graphs.hollow_graph import GRAPH, read_graph_file

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model by the name of the function that makes it, made once."""
    folder = tmp_path_factory.mktemp("graphs")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            path.mkdir()
            getattr(tensorflow_models, name)(path)
        return path

    return make


def rows(outcome: Outcome, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(Path(outcome.output_path) / f"{table}.parquet").to_pylist()
    return found


def exported(source: Path, output: Path, **options: Any) -> Outcome:
    outcome = export_here(source, output, **{"formats": ("onnx", "parquet"), "verify": False} | options)
    assert outcome.error is None, outcome.error
    return outcome


def made_up(inputs: list[Any]) -> dict[str, np.ndarray]:
    """Two samples for each input of an ONNX file."""
    numbers = np.random.default_rng(7)
    found = {}
    for value in inputs:
        shape = [size if isinstance(size, int) else 2 for size in value.shape]
        is_index = "int" in value.type
        found[value.name] = (
            numbers.integers(0, 5, shape).astype("int32") if is_index else numbers.normal(size=shape).astype("float32")
        )
    return found


def run_onnx(outcome: Outcome) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Made-up inputs, and what ONNX Runtime makes of them."""
    session = onnxruntime.InferenceSession(str(Path(outcome.output_path) / "model.onnx"))
    inputs = made_up(session.get_inputs())
    names = [value.name for value in session.get_outputs()]
    return inputs, dict(zip(names, session.run(names, inputs), strict=True))


SIGNATURES = [
    ("of_module", "serving_default"),
    ("of_module", "project"),
    ("of_keras", "serving_default"),
    pytest.param("of_tf1", "serving_default", marks=pytest.mark.slow),
    pytest.param("of_loop", "serving_default", marks=pytest.mark.slow),
    pytest.param("of_recurrent_keras", "serving_default", marks=pytest.mark.slow),
    pytest.param("of_keras_2", "serving_default", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "signature"), SIGNATURES)
@pytest.mark.slow
def test_a_saved_model_in_onnx_computes_its_signature(
    made: Callable[[str], Path], tmp_path: Path, name: str, signature: str
) -> None:
    outcome = exported(made(name), tmp_path, signature=signature)
    inputs, outputs = run_onnx(outcome)
    loaded = tf.saved_model.load(str(made(name)))
    theirs = loaded.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
    assert outputs.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(outputs[key], value.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_weights_are_those_that_tensorflow_loads(made: Callable[[str], Path], tmp_path: Path) -> None:
    opened = saved_model.open_source(job_for(made("of_keras"), tmp_path), "")
    theirs = {variable.name: variable.numpy() for variable in tf.saved_model.load(str(made("of_keras"))).variables}
    assert opened.values.keys() == {name.removesuffix(":0") for name in theirs}
    for name, value in theirs.items():
        np.testing.assert_array_equal(opened.values[name.removesuffix(":0")].real(), value)


@pytest.mark.slow
def test_what_keras_3_exports_has_the_scopes_of_its_layers(made: Callable[[str], Path], tmp_path: Path) -> None:
    outcome = exported(made("of_keras"), tmp_path)
    layers = {row["layer"]: row for row in rows(outcome, "layers")}
    model = tensorflow_models.keras_model()
    assert {row["level"] for row in layers.values()} == {"scope"}
    outermost = {name for name, row in layers.items() if row["depth"] == 0}
    assert outermost == {layer.name for layer in model.layers}
    for layer in model.layers:
        assert layers[layer.name]["params_total"] == layer.count_params()
    assert sum(row["params"] for row in layers.values()) == model.count_params()
    chain = [layers[name]["connected_to"] for name in ("conv", "norm", "separable", "pool", "head")]
    assert chain == [["image"], ["conv"], ["norm"], ["separable"], ["pool"]]
    assert layers["separable"]["output_shapes"] == [[None, 4, 4, 5]]


@pytest.mark.slow
def test_costs_are_those_of_the_model_itself(made: Callable[[str], Path], tmp_path: Path) -> None:
    model = tensorflow_models.keras_model()
    model.save(tmp_path / "small.keras")
    as_layers = rows(exported(tmp_path / "small.keras", tmp_path / "one"), "models")[0]
    as_scopes = rows(exported(made("of_keras"), tmp_path / "other"), "models")[0]
    assert as_scopes["macs"] == as_layers["macs"] > 0
    assert as_scopes["nodes"] == as_layers["nodes"]
    assert as_scopes["params_trainable"] == as_layers["params_trainable"]


@pytest.mark.slow
def test_layers_that_keras_2_describes_are_rows(made: Callable[[str], Path], tmp_path: Path) -> None:
    outcome = exported(made("of_keras_2"), tmp_path)
    layers = {row["layer"]: row for row in rows(outcome, "layers")}
    assert rows(outcome, "models")[0]["level"] == "layer"
    classes = {name: row["class"] for name, row in layers.items()}
    assert classes == {
        "ids": "InputLayer",
        "embedding": "Embedding",
        "conv": "Conv1D",
        "lstm": "LSTM",
        "inner": "Sequential",
        "inner/first": "Dense",
        "inner/second": "Dense",
        "head": "Dense",
    }
    assert not layers["conv"]["trainable"]
    assert layers["conv"]["macs"] == 4 * 4 * 4 * 3
    assert layers["inner"]["connected_to"] == layers["head"]["connected_to"] == ["lstm"]


@pytest.mark.slow
def test_layers_of_keras_3_in_a_module(tmp_path: Path) -> None:
    """Saving makes a copy of each of Keras's variables: it is restored, and the signature computes with the other."""
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    )
    module = tf.Module()
    module.inner = inner
    module.offset = tf.Variable([1.0, 2.0, 3.0])
    score = tensorflow_models.signature(lambda x: inner(x) + module.offset, "x", [None, 4], tf.float32)
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=score)
    outcome = export_here(tmp_path / "net", tmp_path / "out")
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")


@pytest.mark.slow
def test_several_signatures_have_to_be_chosen_from_where_none_is_the_usual(tmp_path: Path) -> None:
    net = tensorflow_models.Net()
    signatures = {
        name: tensorflow_models.signature(net.project, "x", [None, 4], tf.float32) for name in ("first", "second")
    }
    tf.saved_model.save(net, str(tmp_path / "net"), signatures=signatures)
    with pytest.raises(UsageError, match="first, second") as caught:
        saved_model.open_source(job_for(tmp_path / "net", tmp_path), "")
    assert caught.value.hint == "--signature first"
    job = job_for(tmp_path / "net", tmp_path, signature="second")
    assert [spec.name for spec in saved_model.open_source(job, "").graph.outputs] == ["y"]
    with pytest.raises(UsageError, match="no graph tagged 'train'"):
        saved_model.open_source(job_for(tmp_path / "net", tmp_path, tag="train"), "")


class Counter(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.hidden = tf.Variable(0.0, name="count"), tf.Variable(0.0, name="hidden")

    def run(self, x: Any) -> dict[str, Any]:
        self.count.assign_add(1.0)
        self.hidden.assign(2.0)
        return {"y": x + self.count}


@pytest.mark.slow
def test_what_computes_with_a_variable_that_it_changes_has_no_onnx(tmp_path: Path) -> None:
    counter = Counter()
    signature = tensorflow_models.signature(counter.run, "x", [None, 3], tf.float32)
    tf.saved_model.save(counter, str(tmp_path / "counter"), signatures=signature)
    job = job_for(tmp_path / "counter", tmp_path)
    opened = saved_model.open_source(job, "")
    assert [weight.name for weight in opened.graph.weights] == ["count"]
    assert "2 of its variables" in opened.notes[0]
    with pytest.raises(UnsupportedError, match="it changes the variable count"):
        opened.structure(job)


# Graphs alone, and with a checkpoint ----------------------------------------------------------------------------------


def run_tensorflow(graph: Any, inputs: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
        with v1.Session(graph=imported) as session:
            found: list[np.ndarray] = session.run(outputs, {f"{key}:0": value for key, value in inputs.items()})
            return found


@pytest.mark.parametrize("source", ["frozen.pb", "m.ckpt.meta"])
@pytest.mark.slow
def test_a_graph_of_tensorflow_1_in_onnx_computes_the_same(
    made: Callable[[str], Path], tmp_path: Path, source: str
) -> None:
    folder = made("tf1_checkpoint")
    outcome = exported(folder / source, tmp_path)
    inputs, outputs = run_onnx(outcome)
    frozen = v1.GraphDef.FromString((folder / "frozen.pb").read_bytes())
    (theirs,) = run_tensorflow(frozen, inputs, ["y:0"])
    np.testing.assert_allclose(outputs["y"], theirs, rtol=1e-4, atol=1e-5)
    found = {row["tensor"]: row for row in rows(outcome, "tensors")}
    assert found["dense/weight"]["shape"] == [4, 3]
    assert sum(np.prod(row["shape"], dtype=int) for row in found.values()) == 4 * 3 + 3 + 20_000 * 3


@pytest.mark.slow
def test_a_graph_can_be_cut_at_its_inputs_and_outputs(made: Callable[[str], Path], tmp_path: Path) -> None:
    ends: dict[str, Any] = {"inputs": ("add:0",), "outputs": ("hidden",)}
    outcome = exported(made("tf1_checkpoint") / "frozen.pb", tmp_path, **ends)
    inputs, outputs = run_onnx(outcome)
    np.testing.assert_array_equal(outputs["hidden"], np.maximum(inputs["add"], 0))
    assert rows(outcome, "tensors") == []


def test_an_end_that_is_not_there_is_named(made: Callable[[str], Path], tmp_path: Path) -> None:
    job = job_for(made("tf1_checkpoint") / "frozen.pb", tmp_path, outputs=("z:0",))
    with pytest.raises(UsageError, match="the graph has no operation z") as caught:
        graph_def.open_source(job, "")
    assert caught.value.hint == "--outputs y:0"


@pytest.mark.slow
def test_outputs_of_a_training_graph_are_candidates(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("training_checkpoint")
    refused = export_here(folder, tmp_path)
    assert refused.error is not None
    assert refused.error["type"] == "UsageError"
    assert "probabilities:0" in refused.error["why"]
    assert "classes:0" in refused.error["why"]
    assert "Adam" not in refused.error["why"]
    described = exported(folder, tmp_path, formats=("parquet",))
    assert any("all results" in note for note in described.notes)
    chosen = exported(folder, tmp_path / "chosen", outputs=("probabilities:0",))
    inputs, outputs = run_onnx(chosen)
    assert outputs["probabilities"].sum(-1) == pytest.approx(np.ones(2), abs=1e-5)
    assert list(inputs) == ["x"]


@pytest.mark.slow
def test_a_graph_in_text_is_read_and_its_variables_have_no_values(made: Callable[[str], Path], tmp_path: Path) -> None:
    frozen = v1.GraphDef.FromString((made("tf1_checkpoint") / "frozen.pb").read_bytes())
    (tmp_path / "frozen.pbtxt").write_text(text_format.MessageToString(frozen))
    as_text = exported(tmp_path / "frozen.pbtxt", tmp_path / "text", formats=("parquet",))
    as_bytes = exported(made("tf1_checkpoint") / "frozen.pb", tmp_path / "bytes", formats=("parquet",))
    names = ("layer", "class", "params", "connected_to", "output_shapes")
    assert [[row[name] for name in names] for row in rows(as_text, "layers")] == [
        [row[name] for name in names] for row in rows(as_bytes, "layers")
    ]
    graph = tensorflow_models.tf1_graph().as_graph_def()
    (tmp_path / "variables.pbtxt").write_text(text_format.MessageToString(graph))
    outcome = exported(tmp_path / "variables.pbtxt", tmp_path / "out", formats=("parquet",))
    assert {row["tensor"]: row["shape"] for row in rows(outcome, "tensors")}["dense/weight"] == [4, 3]
    refused = export_here(tmp_path / "variables.pbtxt", tmp_path / "onnx")
    assert refused.error is not None
    assert "nothing has its value" in refused.error["why"]


def constants(path: Path) -> Path:
    """A graph with constants of every dtype, in every way in which TensorFlow writes them."""
    graph = v1.GraphDef()
    for name in ("float32", "float64", "int32", "uint8", "bool", "bfloat16", "float16", "int64", "complex64"):
        dtype = tf.as_dtype(name)
        array = (np.arange(3000) % 2).reshape(3, 1000).astype(dtype.as_numpy_dtype)
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    numbers = graph.node.add(name="numbers", op="Const")
    numbers.attr["dtype"].type = tf.float32.as_datatype_enum
    tensor = numbers.attr["value"].tensor
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape([40, 40]).as_proto())
    tensor.float_val.extend(range(1000))
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.slow
def test_large_constants_stay_in_the_file(tmp_path: Path) -> None:
    path = constants(tmp_path / "constants.pb")
    theirs = {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in v1.GraphDef.FromString(path.read_bytes()).node}
    file = read_graph_file(str(path), GRAPH)
    assert len(file.content) < 2000 < path.stat().st_size
    for node in v1.GraphDef.FromString(file.content).node:
        value = file.constants[node.attr["memory_region_name"].s.decode()]
        assert (value.shape, value.dtype) == (theirs[node.name].shape, theirs[node.name].dtype)
        np.testing.assert_array_equal(value.real(), theirs[node.name])
        np.testing.assert_array_equal(np.concatenate(list(value.pieces(100))).reshape(value.shape), theirs[node.name])


@pytest.mark.slow
def test_a_constant_that_is_one_number_is_not_filled(tmp_path: Path) -> None:
    """A tebibyte, in forty bytes."""
    graph = v1.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    node = graph.node.add(name="ones", op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    tensor = node.attr["value"].tensor
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape([2**19, 2**19]).as_proto())
    tensor.float_val.append(1.0)
    add = graph.node.add(name="y", op="AddV2", input=["x", "ones"])
    add.attr["T"].type = tf.float32.as_datatype_enum
    (tmp_path / "ones.pb").write_bytes(graph.SerializeToString())
    opened = graph_def.open_source(job_for(tmp_path / "ones.pb", tmp_path, formats=("parquet",)), "")
    assert opened.graph.weights[0].nbytes == 2**40
    assert opened.values["ones"].outline.shape == (2**19, 2**19)


@pytest.mark.slow
def test_an_operation_that_nobody_knows_is_described_and_named(tmp_path: Path) -> None:
    graph = v1.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    graph.node.add(name="scope/own", op="SomebodysOwnOp", input=["x"])
    (tmp_path / "own.pb").write_bytes(graph.SerializeToString())
    outcome = exported(tmp_path / "own.pb", tmp_path / "out", formats=("parquet", "svg"))
    assert [(row["layer"], row["class"]) for row in rows(outcome, "layers")] == [
        ("x", "InputLayer"),
        ("scope", "SomebodysOwnOp"),
    ]
    refused = export_here(tmp_path / "own.pb", tmp_path / "onnx")
    assert refused.error is not None
    assert "SomebodysOwnOp" in refused.error["why"]


@pytest.mark.parametrize(
    ("names", "weights", "found"),
    [
        (["dense_1/MatMul", "act_1/Relu"], {"dense_1/MatMul": "dense/kernel"}, ["dense", "act"]),
        (["dense_1/MatMul", "act_1/Relu"], {"dense_1/MatMul": "dense_1/kernel"}, ["dense_1", "act_1"]),
        (["m/a_1/q_1/MatMul", "m/a_1/x_1/Mul"], {"m/a_1/q_1/MatMul": "a/q/kernel"}, ["a/q", "a/x_1"]),
        (["PartitionedCall/net/a/Add", "PartitionedCall/net/b/Mul"], {}, ["a", "b"]),
        (["a/Add", "b/Mul"], {}, ["a", "b"]),
        (["StatefulPartitionedCall_1/StatefulPartitionedCall"], {}, ["Op"]),
    ],
)
@pytest.mark.slow
def test_scopes_are_named_as_before_they_were_traced(
    names: list[str], weights: dict[str, str], found: list[str]
) -> None:
    assert namespaces([(name, "Op") for name in names], (), weights) == found


# What is wrong --------------------------------------------------------------------------------------------------------

Spoil = Callable[[Path, Callable[[str], Path]], Path]


def spoiled(part: str, change: Callable[[bytes], bytes | None], model: str = "of_module") -> Spoil:
    """A copy of a model, one file of which is changed, or removed."""

    def spoil(folder: Path, made: Callable[[str], Path]) -> Path:
        for path in made(model).rglob("*"):
            if path.is_file():
                copy = folder / path.relative_to(made(model))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        content = change((folder / part).read_bytes())
        (folder / part).unlink()
        if content is not None:
            (folder / part).write_bytes(content)
        return folder

    return spoil


def in_file(name: str, content: Callable[[Callable[[str], Path]], bytes]) -> Spoil:
    def spoil(folder: Path, made: Callable[[str], Path]) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content(made))
        return folder / name

    return spoil


def frozen(made: Callable[[str], Path]) -> bytes:
    return (made("tf1_checkpoint") / "frozen.pb").read_bytes()


def lying(made: Callable[[str], Path]) -> bytes:
    """A constant whose shape is not that of its content."""
    graph = v1.GraphDef.FromString(constants(made("of_module") / "constants").read_bytes())
    graph.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 2**50
    return graph.SerializeToString()


def cyclic(made: Callable[[str], Path]) -> bytes:
    graph = v1.GraphDef()
    for name, other in (("a", "b"), ("b", "a")):
        graph.node.add(name=name, op="Neg", input=[other]).attr["T"].type = tf.float32.as_datatype_enum
    graph.node.add(name="y", op="Neg", input=["a"]).attr["T"].type = tf.float32.as_datatype_enum
    return graph.SerializeToString()


def circular(made: Callable[[str], Path]) -> bytes:
    """Copies of each other."""
    graph = v1.GraphDef.FromString(cyclic(made))
    for node in graph.node:
        node.op = "Identity"
    return graph.SerializeToString()


def untyped(made: Callable[[str], Path]) -> bytes:
    """Operations without the attributes that they must have; TensorFlow's optimizer takes them for granted."""
    graph = v1.GraphDef.FromString(frozen(made))
    for node in graph.node:
        if node.op not in ("Const", "Placeholder"):
            node.attr.clear()
    return graph.SerializeToString()


PB, DATA = "saved_model.pb", "variables/variables.data-00000-of-00001"
FAULTS: list[Any] = [
    ("empty saved_model.pb", spoiled(PB, lambda data: b""), SourceError),
    ("saved_model.pb cut off", spoiled(PB, lambda data: data[: len(data) // 2]), SourceError),
    ("saved_model.pb garbage", spoiled(PB, lambda data: bytes(range(256)) * 9), SourceError),
    ("no graph", spoiled(PB, lambda data: b"\x08\x01"), SourceError),
    ("no data file", spoiled(DATA, lambda data: None), SourceError),
    ("data file cut off", spoiled(DATA, lambda data: data[:-100]), SourceError),
    ("no index", spoiled("variables/variables.index", lambda data: None), SourceError),
    ("index garbage", spoiled("variables/variables.index", lambda data: data[::-1]), SourceError),
    ("meta cut off", spoiled("m.ckpt.meta", lambda data: data[:-200], "tf1_checkpoint"), SourceError),
    ("meta without data", spoiled("m.ckpt.data-00000-of-00001", lambda data: None, "tf1_checkpoint"), SourceError),
    ("graph cut off", in_file("g.pb", lambda made: frozen(made)[:-30]), SourceError),
    ("graph empty", in_file("g.pb", lambda made: b""), SourceError),
    ("graph garbage", in_file("g.pb", lambda made: b"\x0a\xff" * 99), SourceError),
    ("text cut off", in_file("g.pbtxt", lambda made: b"node {\n name: 'x'\n op:"), SourceError),
    ("constant that lies about its shape", in_file("g.pb", lying), SourceError),
    ("cycle", in_file("g.pb", cyclic), UnsupportedError),
    ("circle of copies", in_file("g.pb", circular), UnsupportedError),
    ("no attributes", in_file("g.pb", untyped), UnsupportedError),
]


def failure(source: Path, output: Path) -> dict[str, Any]:
    """What goes wrong, when the source is looked at or when it is exported."""
    try:
        outcome = export_here(source, output, formats=("onnx", "parquet"))
    except ExportError as error:
        return error.as_record()
    return dict(outcome.error or {})


@pytest.mark.parametrize(("spoil", "kind"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
@pytest.mark.slow
def test_a_fault_is_an_error_and_leaves_nothing(
    made: Callable[[str], Path], tmp_path: Path, spoil: Spoil, kind: type[ExportError]
) -> None:
    source = spoil(tmp_path / "bad", made)
    found = failure(source, tmp_path / "out")
    assert (found["type"], bool(found["hint"])) == (kind.__name__, True), found
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["of_module", "tf1_checkpoint"])
def test_a_folder_is_told_by_what_is_in_it(made: Callable[[str], Path], name: str) -> None:
    kinds = {"of_module": "saved_model", "tf1_checkpoint": "meta_graph"}
    assert detect(str(made(name))).kind == kinds[name]
    if name == "of_module":
        assert detect(str(made(name) / "saved_model.pb")).kind == "saved_model"
    else:
        assert detect(str(made(name) / "frozen.pb")).kind == "graph_def"


def test_what_the_page_of_sources_shows_is_understood(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = {
        "saved_model_folder": made("of_module"),
        "frozen_graph.pb": made("tf1_checkpoint") / "frozen.pb",
        "checkpoint_folder": made("tf2_checkpoint"),
        **{f"model.{path.name.removeprefix('m.')}": path for path in made("tf1_checkpoint").glob("m.ckpt.*")},
    }
    for name, path in stand_ins.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    sections = (REPOSITORY / "docs" / "sources.md").read_text("utf-8").split("\n## ")
    ours = [each for each in sections if each.startswith(("SavedModel folders", "Frozen graphs", "Checkpoints"))]
    lines = [line for each in ours for line in each.splitlines() if line.startswith("export-model ")]
    ran: list[Job] = []

    def run(job: Job, *, watch: object) -> Outcome:
        ran.append(job)
        return Outcome(job.name, "done", job.output_path)

    for line in lines:
        assert cli.main(shlex.split(line, comments=True)[1:], run=run) == 0, line
    assert {job.kind for job in ran} == {"saved_model", "graph_def", "meta_graph", "checkpoint"}
    assert ran[-2].reading.outputs == ("probabilities:0",)


@pytest.mark.slow
def test_an_export_is_verified_in_tensorflow(made: Callable[[str], Path], tmp_path: Path) -> None:
    for source in (made("of_module"), made("of_tf1"), made("tf1_checkpoint") / "frozen.pb", made("tf1_checkpoint")):
        outcome = exported(source, tmp_path, verify=True)
        assert outcome.verification is not None
        assert (outcome.verification.status, outcome.verification.reason) == ("passed", ""), source


@pytest.mark.slow
def test_a_large_frozen_graph_is_run_with_its_constants_as_inputs(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_for(made("tf1_checkpoint") / "frozen.pb", tmp_path)
    inputs = [np.ones((2, 4), np.float32)]
    whole = graph_def.reference_outputs(job, inputs)
    monkeypatch.setattr(graph_def, "LARGEST_WHOLE_BYTES", 0)
    np.testing.assert_array_equal(graph_def.reference_outputs(job, inputs)[0], whole[0])


@pytest.mark.slow
def test_two_exports_are_the_same_bytes(made: Callable[[str], Path], tmp_path: Path) -> None:
    one, other = (exported(made("of_module"), tmp_path / name) for name in ("one", "other"))
    assert [(file.name, file.sha256) for file in one.files] == [(file.name, file.sha256) for file in other.files]
    assert keras.backend.backend() == "tensorflow"
