"""`--to netron`: the view of what was converted, or of the layers where there is no ONNX form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import onnx
import pandas as pd
import pytest
from conversion import convert, hollow_twin
from exporting import export_here, manifest
from models import BEYOND, MODELS
from onnx import ModelProto
from test_view_model import copies_of, facts_of, inlined, pages
from view_graphs import transformer

from exporter.formats.view_model.facts import facts_of as layer_facts
from exporter.formats.view_model.layer_graph import layer_model
from exporter.formats.view_model.model import view_model
from exporter.sources.keras_models.describe import describe

VIEW = "model.view.onnx"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve blocks with a skip each."""
    keras.utils.clear_session()
    x = image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(x)
    for at in range(12):
        y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"block{at}_first")(x)
        y = keras.layers.Conv2D(4, 3, padding="same", name=f"block{at}_second")(y)
        x = keras.layers.Add(name=f"block{at}_add")([x, y])
    model = keras.Model(image, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x)))
    path = tmp_path_factory.mktemp("source") / "blocks.keras"
    model.save(path)
    return path


def opened(folder: Path) -> ModelProto:
    view = onnx.load(folder / VIEW)
    onnx.checker.check_model(view)
    return view


@pytest.mark.slow
def test_alone_it_needs_no_other_file(source: Path, tmp_path: Path) -> None:
    outcome = export_here(source, tmp_path, formats=("netron",))
    assert outcome.status == "done"
    folder = Path(outcome.output_path)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", VIEW]
    assert [file["name"] for file in manifest(folder)["files"]] == [VIEW]
    block = pages(opened(folder))["block0…11"]
    assert [node.op_type for node in block] == ["Conv", "Relu", "Conv", "Add"]
    convolution = facts_of(block[0])
    assert convolution["layer class"] == "Conv2D"
    assert convolution["layer output"] == "?×8×8×4 float32"
    assert convolution["layer parameters"] == "148"
    assert convolution["MACs"] == f"{8 * 8 * 4 * 3 * 3 * 4:,}"


@pytest.mark.slow
def test_it_is_the_same_beside_the_model_and_holds_its_nodes(source: Path, tmp_path: Path) -> None:
    alone = export_here(source, tmp_path / "a", formats=("netron",))
    beside = export_here(source, tmp_path / "b", formats=("netron", "onnx", "parquet"), verify=False)
    folder = Path(beside.output_path)
    assert (folder / VIEW).read_bytes() == (Path(alone.output_path) / VIEW).read_bytes()
    flat = onnx.load(folder / "model.onnx")
    names = {name for nodes in pages(opened(folder)).values() for node in nodes for name in copies_of(node)}
    assert {node.name for node in flat.graph.node} <= names
    nodes = pd.read_parquet(folder / "nodes.parquet").set_index("node")
    for boxes in pages(opened(folder)).values():
        for box in boxes:
            for name in copies_of(box):
                if name in nodes.index and "layer class" in facts_of(box):
                    assert facts_of(box)["MACs"].replace(",", "") == str(nodes.loc[name, "macs"])


@pytest.mark.slow
def test_what_has_no_onnx_form_is_shown_by_its_layers(tmp_path: Path) -> None:
    keras.utils.clear_session()
    words = keras.Input((), dtype="string", name="words")
    numbers = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3, name="lookup")(words)
    keras.Model(words, keras.layers.Dense(2, name="head")(numbers)).save(tmp_path / "words.keras")
    outcome = export_here(tmp_path / "words.keras", tmp_path, formats=("netron",))
    assert outcome.status == "done"
    assert any("shown by its layers" in note for note in outcome.notes)
    view = opened(Path(outcome.output_path))
    ops = [node.op_type for node in view.graph.node]
    assert (ops[0], ops[-1]) == ("TextVectorization", "Dense")
    assert [value.name for value in view.graph.input] == ["words:0"]


@pytest.mark.parametrize("name", [*MODELS, *BEYOND])
def test_the_layers_of_any_model_can_be_shown(name: str) -> None:
    with hollow_twin((MODELS | BEYOND)[name]) as model:
        graph = describe(model, "m")
    view = view_model(layer_model(graph), layer_facts(graph.layers, None))
    onnx.checker.check_model(view)
    shown = {name for nodes in pages(view).values() for node in nodes for name in copies_of(node)}
    shown |= {value.name.removesuffix(":0") for value in view.graph.input}
    for layer in graph.layers:
        if layer.parent is None:
            assert any(name == layer.namespace or name.startswith(f"{layer.namespace}/") for name in shown)


@pytest.mark.parametrize("name", ["attention_causal_masked", "transformer_block", "nested_models", "siamese", "lstm"])
@pytest.mark.slow
def test_converted_models_are_in_their_views(name: str) -> None:
    flat = convert(MODELS[name]).structure.model
    view = view_model(flat)
    onnx.checker.check_model(view)
    ops = Counter(node.op_type for node in inlined(view).graph.node if node.op_type != "Constant")
    assert ops == Counter(node.op_type for node in flat.graph.node if node.op_type != "Constant")


@pytest.mark.slow
def test_weights_stay_out_of_it(source: Path, tmp_path: Path) -> None:
    folder = Path(export_here(source, tmp_path, formats=("netron", "onnx"), verify=False).output_path)
    content = (folder / VIEW).read_bytes()
    for proto in onnx.load(folder / "model.onnx").graph.initializer:
        values = onnx.numpy_helper.to_array(proto)
        if values.dtype == np.float32 and values.size > 64:
            assert values.tobytes() not in content


@pytest.mark.slow
def test_an_onnx_file_gets_its_view_without_tensorflow(tmp_path: Path) -> None:
    onnx.save(transformer(12), tmp_path / "m.onnx")
    outcome = export_here(tmp_path / "m.onnx", tmp_path / "out", formats=("netron",))
    assert outcome.status == "done"
    view = opened(Path(outcome.output_path))
    assert sum(node.op_type.startswith("layer_") for node in view.graph.node) == 12
