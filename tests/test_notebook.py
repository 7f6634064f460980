"""`exporter.export(model)` and `exporter.inspect(model)`: catalogue, ONNX and memory of a live model, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from exporting import export_here, initializers, leftovers, run_here
from keras import layers
from models import MODELS

import exporter
from exporter.errors import MismatchError, SourceError, TrustError, UnsupportedError, UsageError
from exporter.notebook import cell_display
from exporter.notebook.result import Exported
from exporter.records import Job, Outcome
from exporter.wire import MemoryEvent, NoteEvent, ProgressEvent, StageEvent

SLOW = pytest.mark.slow


def export(model: Any, output: Path, **options: Any) -> Exported:
    """In this process, instead of a worker's."""
    return exporter.export(model, output=output, run=run_here, quiet=True, **options)


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.Flatten(name="flat")(x)), name="small_net")


@pytest.fixture(scope="module")
def described(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(model, tmp_path_factory.mktemp("described"), to="parquet, svg")


TABLES = ("models", "layers", "tensors", "edges")
# What the two ways cannot have in common: where the model comes from.
ORIGIN = {"source", "kind", "source_digest", "weights"}


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    found = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key not in ORIGIN} for row in found]


COMPARED = [
    "shared_conv",
    *(pytest.param(n, marks=SLOW) for n in ("transformer_block", "attention", "embedding_reversible")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_a_live_model_describes_itself_as_its_file_does(name: str, tmp_path: Path) -> None:
    """Layers, edges, weights and costs, against the archive that Keras saves."""
    keras.utils.clear_session()
    live = MODELS[name]()
    live.save(tmp_path / "net.keras")
    found = export(live, tmp_path / "live", to="parquet", name="net")
    expected = export_here(tmp_path / "net.keras", tmp_path / "file", formats=("parquet",))
    for table in TABLES:
        assert rows(found.folder, table) == rows(Path(expected.output_path), table), table


def test_tables_and_paths(model: Any, described: Exported) -> None:
    assert described.status == "done"
    assert described.folder.name == described.name == "small_net"
    assert list(described.paths) == ["model.svg", *(f"{table}.parquet" for table in TABLES)]
    assert all(path.is_file() for path in described.paths.values())
    frame = described.layers.to_pandas()
    assert list(frame["name"]) == [layer.name for layer in model.layers]
    assert frame["params"].sum() == model.count_params()
    assert described.tensors.to_arrow().num_rows == len(model.weights)
    assert described.models.to_pandas()["source"][0] == "small_net"
    assert described.verification is None
    with pytest.raises(UsageError, match="no table of nodes"):
        described.nodes  # noqa: B018


def test_nothing_else_is_left(described: Exported) -> None:
    assert leftovers(described.folder.parent) == []
    assert sorted(path.name for path in described.folder.parent.iterdir()) == ["small_net"]
    assert str(described.folder.parent) not in (described.folder / "manifest.json").read_text()


def test_how_it_shows_itself(described: Exported) -> None:
    assert described._repr_svg_() == described.svg
    assert described.svg.startswith("<?xml")
    page = described._repr_html_()
    assert "layers.parquet" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "5 layers, " in repr(described)


@pytest.mark.slow
def test_names_in_a_page_are_no_markup(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="a<script>b")], name="n")
    found = exporter.inspect(net, run=run_here)
    assert "<script>" not in found._repr_html_()
    assert "a<script>b" in str(found)


@pytest.mark.slow
def test_weights_are_there_for_statistics(model: Any, tmp_path: Path) -> None:
    found = export(model, tmp_path, to=["parquet"], stats=True)
    frame = found.tensors.to_pandas().set_index("tensor")
    for variable in model.weights:
        value = np.asarray(variable)
        assert frame["max"][variable.path] == pytest.approx(float(value.max()))
        assert frame["mean"][variable.path] == pytest.approx(float(value.mean()), abs=1e-7)


@SLOW
def test_onnx_of_a_live_model(model: Any, tmp_path: Path) -> None:
    found = export(model, tmp_path, name="net")
    assert found.verification is not None
    assert (found.verification.status, found.verification.reason) == ("passed", "")
    assert found.manifest["weights"] == "from the live model"
    assert found.nodes.to_arrow().num_rows == len(onnx.load(str(found.paths["model.onnx"])).graph.node)
    np.testing.assert_array_equal(initializers(found.folder)["head/bias"], np.asarray(model.get_layer("head").bias))
    assert export(model, tmp_path, name="net").status == "skipped"
    assert export(model, tmp_path, name="net", force=True).status == "done"
    model.get_layer("head").bias.assign_add(np.ones(5, "float32"))
    assert export(model, tmp_path, name="net").status == "done"


@pytest.mark.slow
def test_a_source_works_too(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    found = export(tmp_path / "net.keras", tmp_path, to="parquet")
    assert found.folder == tmp_path / "net"
    assert found.models.to_pandas()["source"][0] == "net.keras"


def test_an_optimizer_is_left_out(model: Any, tmp_path: Path) -> None:
    """Adam holds twice the size of the weights."""
    import h5py

    from exporter.sources.keras_models.live_model import write_folder

    net = keras.Sequential([keras.Input((50,)), layers.Dense(50, name="wide")], name="net")
    net.compile("adam", "mse")
    net.optimizer.build(net.trainable_variables)
    write_folder(net, "net", tmp_path / "net")
    with h5py.File(tmp_path / "net" / "model.weights.h5") as file:
        assert "optimizer" not in file
    again = keras.saving.load_model(tmp_path / "net", compile=False)
    np.testing.assert_array_equal(again.get_layer("wide").kernel, net.get_layer("wide").kernel)


class OnlyHere(layers.Layer):
    """A class like one in a cell of a notebook; the test says that it is in `__main__`."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale


class Unserialisable(keras.Model):
    def __init__(self, inner: Any) -> None:
        super().__init__(name="odd")
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(OnlyHere, "__module__", "__main__")
    return keras.Sequential([keras.Input((3,)), OnlyHere(name="mine"), layers.Dense(2, name="out")], name="net")


@pytest.mark.slow
def test_classes_of_a_cell_are_described(cell: Any, tmp_path: Path) -> None:
    found = export(cell, tmp_path, to="parquet,svg")
    assert list(found.layers.to_pandas()["class"]) == ["InputLayer", "OnlyHere", "Dense"]
    assert "OnlyHere" in str(exporter.inspect(cell, run=run_here))


def test_classes_of_a_cell_are_not_converted(cell: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot import OnlyHere of __main__") as caught:
        export(cell, tmp_path)
    assert "%%writefile" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_keras_cannot_serialise_is_described(tmp_path: Path) -> None:
    net = Unserialisable(layers.Dense(2, name="out"))
    net(np.zeros((1, 3), "float32"))
    assert list(export(net, tmp_path, to="parquet").layers.to_pandas()["layer"]) == ["out"]


@pytest.mark.parametrize(("called_on", "texts"), [((1, 3), ("?,3",)), ((2, None, 3), ("?,?,3",)), (None, ())])
def test_the_inputs_of_a_subclassed_model_are_those_that_it_was_called_on(called_on: Any, texts: Any) -> None:
    from exporter.sources.keras_models.live_model import recorded_input_shapes

    net = Unserialisable(layers.Dense(2, name="out"))
    if called_on:
        net(keras.Input(batch_shape=called_on))
    assert recorded_input_shapes(net) == texts
    assert recorded_input_shapes(keras.Sequential([keras.Input((3,)), layers.Dense(2)])) == ()


@SLOW
def test_classes_of_a_module_are_imported_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layers_of_a_module.py").write_text(
        "import keras\n\n\nclass Doubled(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n\n\n"
        "class Net(keras.Model):\n    def __init__(self, **settings):\n        super().__init__(**settings)\n"
        "        self.out = keras.layers.Dense(2)\n\n    def call(self, x):\n        return self.out(x)\n"
    )
    code = (
        "import sys\nsys.path.insert(0, '.')\nimport keras, exporter\nfrom layers_of_a_module import Doubled, Net\n"
        "inner = Net(name='inner')\ninner(keras.ops.zeros((1, 3)))\n"
        "print(exporter.export(inner).verification.status)\n"
        "net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Doubled(), "
        "keras.layers.Lambda(lambda x: x + 1)], name='net')\n"
        "found = exporter.export(net)\nprint(found.verification.status, found.paths['model.onnx'])\n"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["passed", "passed", "outputs/net/model.onnx"]
    assert "net: convert: " in child.stderr
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("what", "options", "kind", "says"),
    [
        (3, {}, UsageError, "it is a builtins.int"),
        (layers.Dense(3), {}, UsageError, "Dense"),
        (keras.Sequential([layers.Dense(3)], name="net"), {"to": "parquet"}, UnsupportedError, "has no weights yet"),
        ("missing.keras", {}, SourceError, "no such file"),
        ("nets.py:make", {}, TrustError, "would be imported"),
        ("resnet50", {"wheights": "random"}, UsageError, "is an unknown option"),
        ("resnet50", {"to": "pptx"}, UsageError, "is an unknown format"),
        ("resnet50", {"name": "a/b"}, UsageError, "is the name of a folder"),
        ("resnet50", {"opset": 3}, UsageError, "supported opsets"),
    ],
)
def test_what_is_refused(what: Any, options: dict[str, Any], kind: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=says):
        export(what, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_bad_options_are_found_before_a_model_is_written(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "exporter.sources.keras_models.live_model.write_folder", lambda *_: pytest.fail("it was written")
    )
    with pytest.raises(UsageError):
        export(model, tmp_path, opset=3)


def test_a_failure_of_the_worker_is_raised(model: Any, tmp_path: Path) -> None:
    def run(job: Job, *, watch: object) -> Outcome:
        return Outcome(job.name, "failed", error=SourceError("is broken", where="x").as_record())

    with pytest.raises(SourceError, match="is broken"):
        exporter.export(model, to="parquet", output=tmp_path, run=run, quiet=True)
    with pytest.raises(MismatchError):
        exporter.export(
            model, to="parquet", output=tmp_path, run=lambda job, watch: Outcome(job.name, "mismatch"), quiet=True
        )
    assert leftovers(tmp_path) == []


def test_a_description_that_is_damaged(model: Any, tmp_path: Path) -> None:
    from exporter.sources.keras_models.live_model import write_graph

    write_graph(model, "net", tmp_path / "net", with_weights=False)
    whole = (tmp_path / "net").read_bytes()
    for number, data in enumerate((whole[: len(whole) // 2], whole.replace(b'"layers"', b'"players"'))):
        (tmp_path / f"bad{number}").write_bytes(data)
        with pytest.raises(SourceError):
            export(tmp_path / f"bad{number}", tmp_path / "out", to="parquet")


@pytest.mark.slow
@pytest.mark.parametrize("style", ["folded", "sorted", "stats"])
def test_inspections(model: Any, described: Exported, style: str) -> None:
    options: dict[str, Any] = {"folded": {}, "sorted": {"sort": "params", "top": 1}, "stats": {"stats": True}}[style]
    found = exporter.inspect(model, run=run_here, **options)
    text = str(found)
    assert {"folded": "conv", "sorted": "head", "stats": "head/kernel"}[style] in text
    assert ("norm" in text) == (style != "sorted")
    assert found.layers.to_arrow().num_rows == len(model.layers)
    assert "<pre" in found._repr_html_()
    place = found.folder.parent
    assert place.exists()
    found._place.cleanup()  # type: ignore[union-attr]
    assert not place.exists()


def test_inspecting_a_folder(described: Exported) -> None:
    found = exporter.inspect(described.folder)
    assert "head" in str(found)
    assert found.folder == described.folder


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a notebook would show one after the other in the same place."""
    shown: list[str] = []

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, *, raw: shown.append(data["text/plain"]))

    module = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()), display=None)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr(cell_display, "UPDATE_SECONDS", 0.0)
    return shown


def test_progress_in_a_notebook_is_one_line(page: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    display = cell_display.choose_display(quiet=False)
    display.begin("net")
    for event in (
        StageEvent("weights", "start"),
        MemoryEvent(700_000_000, 700_000_000),
        ProgressEvent("weights", 1, 2),
        NoteEvent("a note"),
        StageEvent("weights", "end", 1.0, 1),
    ):
        display.take(event)
    display.end()
    assert page[1] == "net, starting"
    assert "net, weights: 1 B of 2 B, 700 MB in use" in page
    assert page[-1] == ""
    assert capsys.readouterr().out == ""


def test_there_is_no_line_where_it_shall_be_quiet(page: list[str]) -> None:
    cell_display.choose_display(quiet=True).begin("net")
    assert page == []


@pytest.mark.slow
def test_the_package_does_not_bring_tensorflow() -> None:
    code = (
        "import exporter, sys; exporter.export, exporter.inspect; print(*({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "\n"


HOST = """
import json, sys
import keras, numpy as np
import exporter
from exporter import memory

width = int(sys.argv[1])
inputs = keras.Input((width,))
x = inputs
for number in range(16):
    x = keras.layers.Dense(width, use_bias=False, kernel_initializer="ones", name=f"dense{number}")(x)
model = keras.Model(inputs, x, name="wide")
before = memory.peak_rss_bytes()
found = exporter.export(model, to=["onnx"], verify=False, quiet=True)
print(json.dumps([before, memory.peak_rss_bytes(), found.manifest["weight_bytes"], sorted(found.paths)]))
"""


@SLOW
def test_the_notebook_does_not_grow(tmp_path: Path) -> None:
    """A model of 1 GB: this process takes two of its tensors (64 MB each) beside what libraries need to start."""
    grown = []
    for width in (64, 4096):
        child = subprocess.run(
            [sys.executable, "-c", HOST, str(width)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        before, after, weight_bytes, paths = json.loads(child.stdout)
        grown.append(after - before)
        assert paths == (["model.onnx"] if width == 64 else ["model.onnx", "model.onnx.data"])
    assert weight_bytes == 16 * 4 * 4096**2
    assert grown[1] < grown[0] + 2 * 4 * 4096**2 + 50 * 10**6
