"""`export-model diff`: layers are matched, and what is said to differ is what was made to differ."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from exporting import export_here, leftovers, run_here
from keras import layers

from exporter import cli
from exporter.diff.differences import (
    ADDED,
    CHANGED,
    COSTS,
    REMOVED,
    RENAMED,
    REWIRED,
    SAME,
    Comparison,
    Difference,
    LayerPair,
    compare,
)
from exporter.diff.initializers import Place, places
from exporter.diff.matching import increasing, is_automatic
from exporter.diff.tables import Tables, flat_settings
from exporter.diff.text import MOST_LAYERS, markdown, record, table
from exporter.diff.weights import DIFFERENT, IDENTICAL, UNKNOWN, WeightDifference, Weights, difference
from exporter.errors import SourceError

Build = Callable[..., Any]


def dense(*units: int, names: Sequence[str] = (), dtype: str | None = None) -> Any:
    """A chain of dense layers with seeded weights; layers without a name get those that Keras counts."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    x = y = keras.Input((12,), name="x")
    for number, size in enumerate(units):
        name = names[number] if names else None
        y = layers.Dense(size, activation="relu", dtype=dtype, name=name)(y)
    return keras.Model(x, y)


def blocks(count: int) -> Any:
    """Residual blocks that differ in nothing, after batch norms that the conversion folds."""
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 4), name="x")
    y = layers.Conv2D(4, 3, padding="same")(x)
    for _ in range(count):
        inside = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(y)))
        y = layers.Add()([y, inside])
    return keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(y)))


class Exports:
    """Exports of models, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, build: Build, weights: Any = None, **options: Any) -> Path:
        if not (self.folder / name).is_dir():
            model = build()
            if weights is not None:
                model.set_weights(weights)
            model.save(self.folder / f"{name}.keras")
            settings = {"formats": ("onnx", "parquet"), "verify": False} | options
            outcome = export_here(self.folder / f"{name}.keras", self.folder, **settings)
            assert outcome.error is None, outcome.error
        return self.folder / name


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def plain(exports: Exports) -> Path:
    return exports("plain", lambda: dense(16, 16, 8))


def compared(before: Path, after: Path) -> Difference:
    return compare(before, after, (before.name, after.name))


def of_status(found: Difference, status: str) -> list[LayerPair]:
    return [layer for layer in found.layers if layer.status == status]


def fields(layer: LayerPair) -> dict[str, tuple[Any, Any]]:
    return {change.field: (change.old, change.new) for change in (*layer.changes, *layer.costs)}


@pytest.mark.usefixtures("_unknown_sources")
@pytest.mark.slow
def test_equal_models_are_equal(plain: Path) -> None:
    found = compared(plain, plain)
    assert found.is_equal
    assert (found.counts, found.weights) == ({SAME: 4}, {SAME: 6})


@pytest.mark.slow
def test_numbers_that_keras_counts_are_no_names(exports: Exports, plain: Path) -> None:
    """A model that was built later in the same process has dense_7 where the first has dense."""
    names = ("dense_7", "dense_8", "dense_9")
    found = compared(plain, exports("counted", lambda: dense(16, 16, 8, names=names)))
    assert found.is_equal
    assert [layer.new for layer in found.layers[1:]] == list(names)
    assert {layer.old for layer in found.layers} != {layer.new for layer in found.layers}


@pytest.mark.slow
def test_new_names_are_matched_by_structure(exports: Exports, plain: Path) -> None:
    found = compared(plain, exports("named", lambda: dense(16, 16, 8, names=("first", "second", "third"))))
    assert [layer.new for layer in of_status(found, RENAMED)] == ["first", "second", "third"]
    assert found.weights == {SAME: 6}
    assert not found.is_equal


@pytest.mark.slow
def test_an_inserted_layer_is_the_only_one_added(exports: Exports, plain: Path) -> None:
    """All layers after it have another number."""
    found = compared(plain, exports("inserted", lambda: dense(16, 32, 16, 8)))
    (added,) = of_status(found, ADDED)
    partners = {layer.old: layer.new for layer in found.layers if layer.old}
    assert of_status(found, REMOVED) == []
    assert added.new in ("dense_1", "dense_2")
    assert partners["dense_2"] == "dense_3"


@pytest.mark.parametrize(("before", "after", "status"), [(3, 4, ADDED), (4, 3, REMOVED)])
@pytest.mark.slow
def test_a_block_among_equal_blocks(exports: Exports, before: int, after: int, status: str) -> None:
    """All of one block, and not parts of two."""
    found = compared(*(exports(f"blocks{count}", lambda count=count: blocks(count)) for count in (before, after)))
    whole = of_status(found, status)
    assert sorted(layer.class_name for layer in whole) == ["Add", "BatchNormalization", "Conv2D", "ReLU"]
    assert len(of_status(found, REWIRED)) == 1
    assert {ADDED, REMOVED} & set(found.counts) == {status}


@pytest.mark.slow
def test_changed_units(exports: Exports, plain: Path) -> None:
    found = compared(plain, exports("units", lambda: dense(16, 24, 8)))
    first, second, third = found.layers[1:]
    assert fields(second)["settings.units"] == (16, 24)
    assert fields(second)["output_shapes"] == ([[None, 16]], [[None, 24]])
    assert fields(second)["params"] == (17 * 16, 17 * 24)
    assert fields(third)["input_shapes"] == ([[None, 16]], [[None, 24]])
    assert (first.changes, second.status, third.status) == ((), CHANGED, CHANGED)
    assert next(change for change in found.totals if change.field == "params").new == 13 * 16 + 17 * 24 + 25 * 8


@pytest.mark.slow
def test_one_element_of_one_weight(exports: Exports, plain: Path) -> None:
    model = dense(16, 16, 8)
    weights = model.get_weights()
    touched = [array.copy() for array in weights]
    touched[2][3, 4] += 1e-3
    found = compared(plain, exports("touched", lambda: dense(16, 16, 8), touched))
    (layer,) = of_status(found, CHANGED)
    (values,) = [tensor.values for tensor in layer.tensors if tensor.status == CHANGED]
    gap = float(np.abs(touched[2].astype(np.float64) - weights[2]).max())
    assert values == WeightDifference(DIFFERENT, "", gap, gap / float(np.abs(weights[2]).max()), 1, 256)
    assert found.weights == {SAME: 5, CHANGED: 1}


@pytest.mark.parametrize("names", [(), ("dense_2", "dense_3", "dense_4")], ids=["the same names", "other numbers"])
@pytest.mark.slow
def test_another_dtype(names: Sequence[str], exports: Exports, plain: Path) -> None:
    weights = dense(16, 16, 8).get_weights()
    half = exports(f"half{len(names)}", lambda: dense(16, 16, 8, names=names, dtype="float16"), weights)
    found = compared(plain, half)
    (tensor, _) = found.layers[1].tensors
    assert fields(found.layers[1])["settings.dtype.name"] == ("float32", "float16")
    assert [(change.field, change.old, change.new) for change in tensor.changes] == [("dtype", "float32", "float16")]
    assert tensor.values is not None
    assert tensor.values.max_abs == np.abs(weights[0] - weights[0].astype(np.float16).astype(np.float32)).max()
    assert found.counts[CHANGED] == 3


@pytest.mark.slow
def test_a_fine_tuned_model(exports: Exports) -> None:
    """The body is frozen and nested in a model with a new head; its layers are found inside."""

    def tuned() -> Any:
        body = keras.Sequential([keras.Input((12,)), *named(("first", 16), ("second", 8))], name="body")
        body.trainable = False
        x = keras.Input((12,), name="x")
        return keras.Model(x, layers.Dense(2, name="new_head")(body(x)))

    def named(*sizes: tuple[str, int]) -> list[Any]:
        return [layers.Dense(size, name=name) for name, size in sizes]

    def original() -> Any:
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((12,), name="x"), *named(("first", 16), ("second", 8), ("head", 10))])

    weights = original().get_weights()
    before = exports("original", original, weights)
    found = compared(before, exports("tuned", tuned, [*weights[:4], weights[4][:, :2], weights[5][:2]]))
    by_old = {layer.old: layer for layer in found.layers}
    assert by_old["first"].new == "body/first"
    assert by_old["first"].is_only_trained_otherwise
    assert {tensor.status for tensor in by_old["second"].tensors} == {SAME}
    assert by_old["head"].new == "new_head"
    assert fields(by_old["head"])["settings.units"] == (10, 2)


@pytest.mark.slow
def test_folded_weights_are_unknown_and_never_equal(exports: Exports) -> None:
    weights = blocks(3).get_weights()
    found = compared(
        exports("blocks3", lambda: blocks(3)), exports("bias", lambda: blocks(3), [*weights[:-1], weights[-1] + 1])
    )
    assert set(found.counts) == {SAME, CHANGED, UNKNOWN}
    assert found.weights[UNKNOWN] == 3 * 6
    assert not found.is_equal
    reasons = {t.values.reason for layer in found.layers for t in layer.tensors if t.status == UNKNOWN and t.values}
    assert all("identical in both" in reason for reason in reasons)


@pytest.fixture
def _unknown_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the sources' digests differed, also where two archives were saved within a second."""
    monkeypatch.setattr("exporter.diff.weights._is_one_source", lambda before, after: False)


@pytest.mark.usefixtures("_unknown_sources")
@pytest.mark.slow
def test_digests_decide_where_the_onnx_file_cannot(plain: Path) -> None:
    row = compared(plain, plain).before.tensors[0]
    weights = Weights(*(compared(plain, plain).before,) * 2)
    folded = row | {"initializer": None, "sha256": "aa"}
    assert weights.compare(folded, folded).status == IDENTICAL
    assert weights.compare(folded, folded | {"sha256": "bb"}).status == DIFFERENT
    assert weights.compare(folded, folded | {"sha256": None}).status == UNKNOWN


@pytest.mark.slow
def test_one_source_has_one_set_of_weights(exports: Exports, tmp_path: Path) -> None:
    """Although its weights are folded in both exports."""
    before = exports("blocks3", lambda: blocks(3))
    outcome = export_here(before.with_suffix(".keras"), tmp_path, formats=("onnx", "parquet"), opset=20, verify=False)
    assert compared(before, Path(outcome.output_path)).is_equal


@pytest.mark.usefixtures("_unknown_sources")
@pytest.mark.slow
def test_where_the_weights_are_does_not_matter(exports: Exports, plain: Path) -> None:
    apart = exports("apart", lambda: dense(16, 16, 8), external_data="always")
    assert (apart / "model.onnx.data").is_file()
    assert compared(plain, apart).is_equal
    (apart / "model.onnx.data").write_bytes(b"")
    with pytest.raises(SourceError, match="ends inside of a weight"):
        compared(plain, apart)


@pytest.mark.parametrize("external", ["always", "never"])
@pytest.mark.slow
def test_places_are_those_that_onnx_reads(exports: Exports, external: str) -> None:
    folder = exports(f"places-{external}", lambda: blocks(1), external_data=external)
    model = onnx.load(str(folder / "model.onnx"))
    found = places(folder / "model.onnx")
    expected = {proto.name: onnx.numpy_helper.to_array(proto) for proto in model.graph.initializer}
    raw = {name for name, place in found.items() if place.path.name.endswith((".onnx", ".data"))}
    assert raw == {proto.name for proto in model.graph.initializer if proto.HasField("raw_data") or external == "never"}
    for name, place in found.items():
        values = np.concatenate([*place.chunks(7), np.empty(0, place.dtype)]).reshape(place.dims)
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize(
    ("first", "second", "status", "max_abs", "count"),
    [
        ([1.0, np.nan], [1.0, np.nan], IDENTICAL, 0.0, 0),
        ([0.0, 1.0], [-0.0, 1.0], DIFFERENT, 0.0, 1),
        ([np.inf, 2.0], [np.inf, 5.0], DIFFERENT, 3.0, 1),
        ([np.nan, 2.0], [1.0, 2.0], DIFFERENT, np.inf, 1),
        ([-np.inf, 2.0], [np.inf, 2.0], DIFFERENT, np.inf, 1),
        ([], [], IDENTICAL, 0.0, 0),
    ],
)
def test_odd_values(
    tmp_path: Path, first: list[float], second: list[float], status: str, max_abs: float, count: int
) -> None:
    sides = []
    for name, values in (("a", first), ("b", second)):
        array = np.array(values, np.float32)
        (tmp_path / name).write_bytes(array.tobytes())
        sides.append(Place(tmp_path / name, 0, array.shape, array.dtype))
    found = difference(*sides)
    assert (found.status, found.max_abs, found.count) == (status, max_abs, count)


@pytest.mark.slow
def test_a_long_chain_is_aligned() -> None:
    """Every thousandth of equal, numbered layers is new; the rest is found in order."""

    def chain(names: Sequence[str]) -> Tables:
        rows = [layer_row(number, name) for number, name in enumerate(names)]
        edges = [edge_row(a, b) for a, b in pairwise(names)]
        return Tables(Path(), "", {}, rows, [], edges)

    old = [f"layer{number}" for number in range(5000)]
    new = [
        word for number, name in enumerate(old) for word in ((name, f"new{number}") if number % 1000 == 7 else (name,))
    ]
    found = list(Comparison(chain(old), chain(new)).layers())
    assert [layer.new for layer in found if layer.old is None] == [f"new{number}" for number in range(7, 5000, 1000)]
    assert not [layer for layer in found if layer.new is None]
    unnamed = list(
        Comparison(chain([f"dense_{n}" for n in range(5000)]), chain([f"dense_{n}" for n in range(1, 5001)])).layers()
    )
    assert {layer.status for layer in unnamed} == {SAME}


def layer_row(index: int, name: str) -> dict[str, Any]:
    row = dict.fromkeys(("input_dtypes", "output_dtypes", "input_shapes", "output_shapes", "parent", *COSTS))
    return row | {
        "index": index,
        "layer": name,
        "name": name,
        "class": "Dense",
        "config": "{}",
        "trainable": True,
        "calls": 1,
    }


def edge_row(source: str, target: str) -> dict[str, Any]:
    return {"source": source, "target": target, "shape": None, "dtype": None} | dict.fromkeys(
        ("source_call", "source_output", "target_call", "target_input"), 0
    )


def test_longest_increasing_subsequence() -> None:
    values = [3, 1, 2, 9, 4, 5]
    assert [values[place] for place in increasing(values)] == [1, 2, 4, 5]
    assert increasing([]) == []


@pytest.mark.parametrize("class_name", ["Dense", "Conv2D", "GlobalAveragePooling2D", "ReLU", "LSTM", "PReLU"])
def test_names_that_keras_counts(class_name: str) -> None:
    kind = getattr(layers, class_name)
    assert is_automatic(
        (kind(3) if class_name in ("Dense", "LSTM") else kind(3, 3) if class_name == "Conv2D" else kind()).name,
        class_name,
    )
    assert not is_automatic("my_layer_3", class_name)


def test_settings_leave_out_names_of_layers_and_keep_dtypes() -> None:
    config = layers.TimeDistributed(layers.Dense(3, name="inner", dtype="float16"), name="outer").get_config()
    found = flat_settings(json.dumps(keras.saving.serialize_keras_object(config)))
    assert found["layer"] == "Dense"
    assert found["layer.units"] == 3
    assert found["layer.dtype.name"] == "float16"
    assert "inner" not in map(str, found.values())


@pytest.mark.slow
def test_text_says_the_summary_first_and_does_not_flood(exports: Exports, plain: Path) -> None:
    found = compared(plain, exports("other", lambda: blocks(4)))
    short, long = (list(table(found, everything=flag)) for flag in (False, True))
    assert short[:2] == ["A: plain, weights: from the archive", "B: other, weights: from the archive"]
    assert sum(line.startswith("+ ") for line in short) == MOST_LAYERS + 1
    assert sum(line.startswith("+ ") for line in long) == found.counts[ADDED]
    assert any(line.startswith("layers: ") for line in short[:12])
    rows = [line for line in markdown(found, everything=True) if line.startswith("| + |")]
    assert len(rows) == found.counts[ADDED]


@pytest.mark.slow
def test_json_holds_everything_that_differs(exports: Exports, plain: Path) -> None:
    found = compared(plain, exports("units", lambda: dense(16, 24, 8)))
    data = json.loads(json.dumps(record(found), allow_nan=False))
    assert data["equal"] is False
    assert data["layers"][CHANGED] == len([layer for layer in data["differences"] if layer["status"] == CHANGED]) == 2
    assert {"field": "settings.units", "old": 16, "new": 24} in data["differences"][0]["changes"]


def run(*words: str | Path) -> int:
    return cli.main(["diff", *map(str, words)], run=run_here)


@pytest.mark.usefixtures("_unknown_sources")
@pytest.mark.slow
def test_exit_status(exports: Exports, plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = exports("units", lambda: dense(16, 24, 8))
    assert run(plain, plain, "--exit-code") == 0
    assert "equal: 4 layers, 6 weights bit-identical" in capfd.readouterr().out
    assert run(plain, other) == 0
    assert "units: 16 → 24" in capfd.readouterr().out
    assert run(plain, other, "--exit-code", "--quiet") == 1
    assert capfd.readouterr().out == ""
    bare = [exports(f"bare{number}", lambda: dense(4), formats=("parquet",)) for number in (1, 2)]
    assert compared(*bare).counts == {SAME: 1, UNKNOWN: 1}
    assert run(*bare, "--exit-code", "-q") == 1


@pytest.mark.slow
def test_a_source_is_exported_and_leaves_nothing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(plain.with_suffix(".keras"), plain, "--format", "json", "--exit-code", "-q") == 0
    assert run(plain.with_suffix(".keras"), plain, "--format", "json") == 0
    assert json.loads(capfd.readouterr().out)["equal"] is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("PLAIN", "no_such_model"), 2, "no_such_model"),
        (("PLAIN", "PLAIN", "--svg", "nowhere/x.svg"), 2, "its folder does not exist"),
        (("PLAIN", "BROKEN"), 4, "layers.parquet: cannot be read"),
        (("PLAIN",), 2, "Missing argument"),
    ],
)
def test_errors(
    plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    shutil.copytree(plain, tmp_path / "broken")
    (tmp_path / "broken" / "layers.parquet").write_bytes(b"nothing")
    targets = {"PLAIN": str(plain), "BROKEN": str(tmp_path / "broken")}
    assert run(*(targets.get(word, word) for word in words)) == status
    assert said in capfd.readouterr().err


@pytest.mark.slow
def test_the_picture_says_what_differs_without_colours(exports: Exports, tmp_path: Path) -> None:
    before, after = exports("blocks4", lambda: blocks(4)), exports("blocks3", lambda: blocks(3))
    assert run(before, after, "--svg", tmp_path / "difference.svg", "-q") == 0
    root = ElementTree.parse(tmp_path / "difference.svg").getroot()
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"- Conv2D 3×3", "- BatchNorm", "- ReLU", "- Add"} <= set(words)
    assert "- removed (dashed)" in words
    assert any(word.endswith("with weights unknown") for word in words)
    assert not any(word.startswith("+ ") for word in words)
    assert "stroke-dasharray" in (tmp_path / "difference.svg").read_text("utf-8")
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_two_applications_of_one_family(tmp_path: Path) -> None:
    for name in ("ResNet50", "ResNet101"):
        assert export_here(name, tmp_path, formats=("parquet",), weights="random").error is None
    found = compared(tmp_path / "resnet50", tmp_path / "resnet101")
    blocks_added = {layer.key.rsplit("_block")[1].split("_")[0] for layer in of_status(found, ADDED)}
    assert blocks_added == {str(number) for number in range(7, 24)}
    assert (found.counts[ADDED], found.counts[REMOVED], found.counts[CHANGED]) == (170, 0, 0)
    assert run(tmp_path / "resnet50", tmp_path / "resnet101", "--svg", tmp_path / "d.svg", "-q") == 0
    assert "×17" in (tmp_path / "d.svg").read_text("utf-8")
