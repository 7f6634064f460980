"""Lookup tables become ONNX that finds what TensorFlow and Keras find, and the comparison asks for what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from exporting import export_here, job_for, outside_hollow_scope
from onnx import TensorProto, helper
from tensorflow.core.protobuf import saved_model_pb2

from exporter.errors import SourceError
from exporter.records import Outcome, TensorSpec
from exporter.sources.graphs import saved_model, table_filling
from exporter.sources.graphs.lookup_table import exported
from exporter.verification.comparison import compare
from exporter.verification.sample_inputs import make_inputs
from exporter.verification.table_keys import UNKNOWN_TEXT, table_keys

v1 = tf.compat.v1
WORDS = np.array([["a", "b", "zz", "d"], ["", "c", "q", "[UNK]"]], object)
NUMBERS = np.array([[5, 17, 300, 4], [0, -3, 5, 1]])
COLUMNS = tf.lookup.TextFileIndex


def text_table(path: Path, **options: Any) -> Any:
    given = {"key_dtype": tf.string, "key_index": COLUMNS.WHOLE_LINE} | options
    given = {"value_dtype": tf.int64, "value_index": COLUMNS.LINE_NUMBER} | given
    return tf.lookup.TextFileInitializer(str(path), **given)


class Tables(tf.Module):
    """Every pair of types that ONNX has, their number, and a hash into one bucket."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        pairs = [
            (["x", "y"], tf.constant([3, 4], tf.int64), -1),
            (tf.constant([3, 4], tf.int64), ["x", "y"], "?"),
            (["q", "r"], [1.5, 2.5], -7.0),
            (tf.constant([3, 4], tf.int32), tf.constant([7, 8], tf.int32), -2),
            (["x", "y"], ["q", "r"], "r"),
        ]
        made = (tf.lookup.KeyValueTensorInitializer(keys, values) for keys, values, _ in pairs)
        self.tables = [tf.lookup.StaticHashTable(each, pair[2]) for each, pair in zip(made, pairs, strict=True)]
        vocabulary.write_text("a\nx\nb c\n")
        self.words = tf.lookup.StaticVocabularyTable(text_table(vocabulary), num_oov_buckets=1)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None], tf.string, "words"), tf.TensorSpec([None], tf.int32, "numbers")],
    )
    def run(self, words: Any, numbers: Any) -> dict[str, Any]:
        index = self.tables[0].lookup(words)
        return {
            "index": index,
            "text": self.tables[1].lookup(index),
            "fraction": self.tables[2].lookup(self.tables[4].lookup(words)),
            "number": self.tables[3].lookup(numbers),
            "size": self.tables[0].size(),
            "line": self.words.lookup(words),
        }


def of_module(folder: Path) -> None:
    module = Tables(folder.parent / "vocabulary.txt")
    tf.saved_model.save(module, str(folder), signatures=module.run)
    (folder.parent / "vocabulary.txt").unlink()


def of_tf1(folder: Path) -> None:
    path = folder.parent / "words.txt"
    path.write_text("a\nb\nc\n")
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        table = tf.lookup.StaticHashTable(text_table(path), -1)
        rows = v1.get_variable("rows", [4, 3])
        y = tf.gather(rows, table.lookup(words) + 1)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(folder), {"words": words}, {"y": y}, legacy_init_op=v1.tables_initializer()
        )
    path.unlink()


def keras_model() -> keras.Model:
    layers = keras.layers
    words, numbers = keras.Input((4,), dtype="string", name="words"), keras.Input((4,), dtype="int64", name="numbers")
    vocabulary = ["a", "b", "c", "d"]
    index = layers.StringLookup(vocabulary=vocabulary)(words)
    outputs = {
        "rows": layers.Embedding(6, 3)(index),
        "masked": layers.StringLookup(vocabulary=vocabulary, mask_token="")(words),
        "present": layers.StringLookup(vocabulary=vocabulary, output_mode="multi_hot")(words),
        "weighted": layers.StringLookup(vocabulary=vocabulary, output_mode="tf_idf", idf_weights=[0.1, 0.2, 0.3, 0.4])(
            words
        ),
        "text": layers.StringLookup(vocabulary=vocabulary, invert=True)(index),
        "buckets": layers.IntegerLookup(vocabulary=[5, 17, 300], mask_token=0, num_oov_indices=2)(numbers),
    }
    return keras.Model([words, numbers], outputs)


def of_keras_3(folder: Path) -> None:
    keras_model().export(str(folder), verbose=False)


def of_keras_2(folder: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    words = tf_keras.Input((4,), dtype="string", name="words")
    index = tf_keras.layers.StringLookup(vocabulary=["a", "b", "c", "d"], mask_token="")(words)
    tf_keras.Model(words, tf_keras.layers.Embedding(7, 3)(index)).save(str(folder))


def run_onnx(outcome: Outcome, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(Path(outcome.output_path) / "model.onnx"))
    names = [value.name for value in session.get_outputs()]
    feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    if expected.dtype == object:
        expected = np.vectorize(bytes.decode)(expected)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


FLAT = {"words": np.array(["x", "y", "a", "b c", "zz", ""], object), "numbers": np.array([3, 4, 5, 0, -1, 3], "int32")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (of_module, FLAT),
        (of_tf1, {"words": WORDS.reshape(-1)}),
        (of_keras_2, {"words": WORDS}),
        (of_keras_3, {"words": WORDS, "numbers": NUMBERS}),
    ],
)
def test_tables_of_a_saved_model(make: Callable[[Path], None], inputs: dict[str, np.ndarray], tmp_path: Path) -> None:
    make(tmp_path / "m")
    outcome = export_here(tmp_path / "m", tmp_path / "out", formats=("onnx", "parquet"))
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert outcome.verification.status == "passed", outcome.verification
    assert max(row.max_abs for row in outcome.verification.outputs) < 1e-6
    found = run_onnx(outcome, inputs)
    with outside_hollow_scope():
        signature = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
        theirs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    assert found.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_same(found[name], value.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["keep", "float16"])
def test_tables_of_a_keras_archive(dtype: str, tmp_path: Path) -> None:
    model = keras_model()
    model.save(tmp_path / "m.keras")
    theirs = model([tf.constant(WORDS), tf.constant(NUMBERS)])
    outcome = export_here(tmp_path / "m.keras", tmp_path / "out", formats=("onnx",), dtype=dtype)
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert outcome.verification.status == "passed", outcome.verification
    found = run_onnx(outcome, {"words": WORDS, "numbers": NUMBERS})
    for key in ("masked", "present", "text", "buckets"):
        name = next(name for name in found if name.startswith(model.output[key].name.split("/")[0]) or name == key)
        assert_same(found[name], theirs[key].numpy())


class Mutable(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.words.insert(tf.constant(["a"]), tf.constant([1], tf.int64))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, "words")])
    def run(self, words: Any) -> dict[str, Any]:
        return {"y": self.words.lookup(words)}


@pytest.mark.slow
def test_what_onnx_cannot_hold_is_named_and_has_a_catalogue(tmp_path: Path) -> None:
    module = Mutable()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
    assert export_here(tmp_path / "m", tmp_path / "tables", formats=("parquet", "svg")).error is None
    refused = export_here(tmp_path / "m", tmp_path / "onnx").error
    assert refused is not None
    assert refused["type"] == "UnsupportedError"
    assert "LookupTableFindV2" in refused["what"]
    assert "MutableHashTable holds" in refused["why"]


@pytest.mark.slow
def test_a_vocabulary_that_is_missing_or_leads_out(tmp_path: Path) -> None:
    of_module(tmp_path / "m")
    path = tmp_path / "m" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    job = job_for(tmp_path / "m", tmp_path / "out")
    (vocabulary,) = (tmp_path / "m" / "assets").iterdir()
    vocabulary.write_text("a\n\nb\n")
    opened = saved_model.open_source(job, "")
    with pytest.raises(SourceError, match=r"line 2 is none of a lookup table: it is empty"):
        opened.structure(job)
    vocabulary.unlink()
    with pytest.raises(SourceError, match=r"assets/vocabulary.txt of a lookup table is missing"):
        saved_model.open_source(job, "")
    for name in ("../vocabulary.txt", "/etc/passwd", "..\\vocabulary.txt"):
        saved.meta_graphs[0].asset_file_def[0].filename = name
        path.write_bytes(saved.SerializeToString())
        with pytest.raises(SourceError, match="leads out of the folder"):
            saved_model.open_source(job, "")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a\nb\nc d\n", {}),
        ("a\r\nb\r\nc", {}),
        ("a\nb\nc\n", {"vocab_size": 3}),
        ("a,3\nb,-4\n", {"key_index": 0, "value_index": 1, "delimiter": ","}),
        ("7\tx\n9\ty z\n", {"key_dtype": tf.int64, "key_index": 0, "value_dtype": tf.string, "value_index": 1}),
        ("x\t0.5\ny\t-2\n", {"key_index": 0, "value_dtype": tf.float32, "value_index": 1}),
        (
            "x\ny\n",
            {"key_dtype": tf.int64, "key_index": COLUMNS.LINE_NUMBER}
            | {"value_dtype": tf.string}
            | {"value_index": COLUMNS.WHOLE_LINE},
        ),
    ],
)
def test_text_files_are_read_as_tensorflow_reads_them(text: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(text.encode())
    initializer = text_table(path, **options)
    default = "" if initializer.value_dtype == tf.string else -1
    table = tf.lookup.StaticHashTable(initializer, default)
    theirs = exported(table.resource_handle, initializer.key_dtype, initializer.value_dtype)
    with tf.Graph().as_default() as graph:
        tf.lookup.StaticHashTable(text_table(path, **options), default)
        graph_def = graph.as_graph_def()
    nodes = {node.op: node for node in graph_def.node}
    ours = table_filling._from_text(path, nodes["InitializeTableFromTextFileV2"], nodes["HashTableV2"])
    assert ours == theirs


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("a\t1\nb\n", {"key_index": 0, "value_index": 1}, "line 2"),
        ("a\tone\n", {"key_index": 0, "value_index": 1}, "line 1"),
        ("a\n\nb\n", {}, "line 2"),
    ],
)
def test_text_files_that_tensorflow_refuses(text: str, options: dict[str, Any], why: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.lookup.StaticHashTable(text_table(path, **options), -1)
    with tf.Graph().as_default() as graph:
        tf.lookup.StaticHashTable(text_table(path, **options), -1)
        nodes = {node.op: node for node in graph.as_graph_def().node}
    with pytest.raises(SourceError, match=why):
        table_filling._from_text(path, nodes["InitializeTableFromTextFileV2"], nodes["HashTableV2"])


# The comparison -------------------------------------------------------------------------------------------------------


def encoder(output: str, source: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("LabelEncoder", [source], [output], domain="ai.onnx.ml", **attributes)


def saved(nodes: Sequence[onnx.NodeProto], path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, [2]) for name in ("words", "y")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), str(path))
    return path


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([{"keys_strings": ["a", "b"], "values_int64s": [1, 2], "default_int64": 0}], ["a", "b", UNKNOWN_TEXT]),
        ([{"keys_strings": ["a", "b"], "values_int64s": [1, 2], "default_int64": -1}], ["a", "b"]),
        (
            [{"keys_strings": ["a"], "values_strings": ["b"]}, {"keys_strings": [""], "values_int64s": [1]}],
            ["a", "", UNKNOWN_TEXT],
        ),
        ([{"keys_int64s": [4, 9], "values_int64s": [1, 2]}], [4, 9, 10]),
    ],
)
def test_the_keys_of_what_takes_an_input(tables: list[dict[str, Any]], expected: list[Any], tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["words"], ["copy"])]
    nodes += [encoder(f"out_{place}", "copy", **table) for place, table in enumerate(tables)]
    nodes += [encoder("y", "out_0", keys_strings=["inner"], values_strings=["z"])]
    assert table_keys(saved(nodes, tmp_path / "m.onnx")) == {"words": expected}


def test_there_are_no_keys_in_what_is_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no")
    assert table_keys(tmp_path / "m.onnx") == table_keys(tmp_path / "none.onnx") == {}


def test_inputs_are_chosen_from_keys() -> None:
    specs = [TensorSpec("words", (2, 3), "string"), TensorSpec("n", (3,), "int32")]
    words, numbers = make_inputs(specs, 2, 0, {"words": ["a", "b", "?"], "n": [5, 900]})
    assert set(words.flat) <= {"a", "b", "?"}
    assert words[1, 2] == "?"
    assert numbers.dtype == np.int32
    assert set(numbers.tolist()) <= {5, 900}


@pytest.mark.parametrize(("found", "status"), [(["a", "b"], "passed"), (["a", "c"], "mismatch")])
def test_texts_are_compared(found: list[str], status: str) -> None:
    expected = np.array([b"a", b"b"], object)
    assert compare(["y"], [expected], [np.array(found, object)], 1e-3, 1e-3).status == status
    assert compare(["y"], [expected], [np.array(found, object)], 1e-3, 1e-3, samples=2).status == status
