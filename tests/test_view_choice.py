"""Which file the browser gets: the view of what is large, no weights unless asked, and the reason in a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import ModelProto
from test_view import get, meta
from test_view_model import facts_of, pages
from view_graphs import residual, transformer

from exporter import cli
from exporter.errors import SourceError, UsageError
from exporter.files import write_json
from exporter.formats.view_model.hollow_file import read_hollow
from exporter.view.choice import choose
from exporter.view.server import Viewer, is_own
from exporter.view.site import Shown


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Path:
    """Where views are made."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


CONTENT = bytes(range(1, 255)) * 64


def saved(path: Path, model: ModelProto) -> Path:
    """The model with recognisable weights inside the file."""
    for proto in model.graph.initializer:
        proto.raw_data = CONTENT
    onnx.save(model, path)
    return path


def export(folder: Path, model: ModelProto, *names: str) -> Path:
    """A folder with what an export leaves, as far as a view needs it."""
    folder.mkdir(parents=True)
    saved(folder / "model.onnx", model)
    for name in set(names) - {"model.onnx", "layers.parquet", "nodes.parquet", "tensors.parquet"}:
        (folder / name).write_bytes(b"view")
    tables(folder, [node.name for node in model.graph.node])
    write_json(folder / "manifest.json", {"files": [{"name": name, "nbytes": 1, "sha256": ""} for name in names]})
    return folder


def tables(folder: Path, nodes: list[str]) -> None:
    layers = pd.DataFrame(
        [
            {"layer": name, "class": "Dense", "output_shapes": [[None, 64]], "output_dtypes": ["float32"]}
            | {"params_total": 11, "macs": 22}
            for name in sorted({name.rpartition("/")[0] for name in nodes})
        ]
    )
    layers.to_parquet(folder / "layers.parquet")
    costs = [{"node": name, "macs": at, "flops": 2 * at, "activation_bytes": None} for at, name in enumerate(nodes)]
    pd.DataFrame(costs).to_parquet(folder / "nodes.parquet")
    statistics = dict.fromkeys(
        ("min", "max", "mean", "std", "l2_norm", "zeros", "near_zeros", "nans", "infs", "dead_filters")
    )
    rows = [
        {"tensor": "a/kernel", "initializer": "a/kernel", "transform": "none", **statistics, "max": 0.5, "nans": 0},
        {"tensor": "b/kernel", "initializer": "b/kernel", "transform": "folded", **statistics, "max": 1.5},
        {"tensor": "b/gamma", "initializer": "b/kernel", "transform": "folded", **statistics, "max": 7.0},
        {"tensor": "gone", "initializer": None, "transform": None, **statistics, "max": 9.0},
    ]
    pd.DataFrame(rows).to_parquet(folder / "tensors.parquet")


ALL = ("model.onnx", "layers.parquet", "nodes.parquet", "tensors.parquet")


def test_a_large_model_is_shown_by_its_blocks(tmp_path: Path) -> None:
    shown = choose(saved(tmp_path / "large.onnx", residual(100)), tmp_path / "place")
    assert shown.name == "large.view.onnx"
    assert "500 nodes are more than 200" in shown.reason
    assert "--full" in shown.reason
    assert CONTENT not in shown.path.read_bytes()
    onnx.checker.check_model(onnx.load(shown.path))


def test_a_small_model_is_shown_node_by_node_and_its_weights_wait(tmp_path: Path) -> None:
    path = saved(tmp_path / "small.onnx", residual(3))
    shown = choose(path, tmp_path / "place")
    assert "15 nodes: all of them" in shown.reason
    assert CONTENT not in shown.path.read_bytes()
    with Viewer([shown]) as viewer:
        address = meta(get(viewer.url)[2], "file").lstrip("/")
        lean = onnx.load_from_string(get(viewer.url, address)[2])
        assert [node.name for node in lean.graph.node] == [node.name for node in onnx.load(path).graph.node]
        entries = {entry.key: entry.value for entry in lean.graph.initializer[0].external_data}
        whole = get(viewer.url, "data/" + entries["location"])[2]
    start, length = int(entries["offset"]), int(entries["length"])
    assert whole[start : start + length] == CONTENT
    assert len(lean.SerializeToString()) < 10_000


def test_full_sends_the_file_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "large.onnx", residual(100))
    shown = choose(path, tmp_path / "place", full=True)
    assert (shown.path, shown.name) == (path, "large.onnx")
    assert "--full" in shown.reason
    assert list((tmp_path / "place").iterdir()) == []


def test_the_view_of_an_export_is_taken(tmp_path: Path) -> None:
    folder = export(tmp_path / "big", residual(100), *ALL, "model.view.onnx")
    shown = choose(folder, tmp_path / "place")
    assert shown.path == folder / "model.view.onnx"
    assert choose(folder, tmp_path / "place", full=True).path == folder / "model.onnx"


def test_a_view_that_is_left_from_an_older_export_is_not(tmp_path: Path) -> None:
    folder = export(tmp_path / "big", residual(100), *ALL)
    (folder / "model.view.onnx").write_bytes(b"old")
    shown = choose(folder, tmp_path / "place")
    assert shown.path.parent == tmp_path / "place"


def test_a_new_view_of_an_export_knows_its_layers_and_costs(tmp_path: Path) -> None:
    folder = export(tmp_path / "big", transformer(12), *ALL)
    boxes = pages(onnx.load(choose(folder, tmp_path / "place").path))
    everywhere = [node for nodes in boxes.values() for node in nodes]
    (first,) = [node for node in everywhere if node.name == "layer_7/feed/first/MatMul"]
    assert facts_of(first)["layer class"] == "Dense"
    assert facts_of(first)["layer output"] == "?×64 float32"
    assert facts_of(first)["layer MACs"] == "22"
    (mask,) = [node for node in boxes[""] if node.name == "mask/mul"]
    assert facts_of(mask)["MACs"] == "1", "the second node of the graph, in the order of the table"


def test_an_export_with_nothing_but_a_view_is_shown(tmp_path: Path) -> None:
    place = choose(saved(tmp_path / "large.onnx", residual(100)), tmp_path / "place").path
    folder = tmp_path / "only"
    folder.mkdir()
    place.rename(folder / "model.view.onnx")
    shown = choose(folder, tmp_path / "place")
    assert shown.path == folder / "model.view.onnx"
    assert "blocks" in shown.reason


def test_a_keras_archive_goes_without_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential"}')
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", CONTENT)
    shown = choose(path, tmp_path / "place")
    with zipfile.ZipFile(shown.path) as archive:
        assert archive.namelist() == ["config.json", "metadata.json"]
        assert archive.read("config.json") == b'{"class_name": "Sequential"}'
    assert CONTENT not in shown.path.read_bytes()
    assert choose(path, tmp_path / "place", full=True).path == path


def test_a_whole_model_of_keras_2_goes_without_its_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": "Sequential"}'
        file["weights"] = np.frombuffer(CONTENT, np.uint8)
    shown = choose(tmp_path / "old.h5", tmp_path / "place")
    assert shown.name == "old.h5.json"
    assert shown.path.read_text() == '{"class_name": "Sequential"}\n'
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["weights"] = [1.0]
    assert choose(tmp_path / "weights.h5", tmp_path / "place").path == tmp_path / "weights.h5"
    (tmp_path / "no.h5").write_bytes(b"x")
    assert choose(tmp_path / "no.h5", tmp_path / "place").path == tmp_path / "no.h5"


def test_what_cannot_be_parted_from_its_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert "with its weights" in choose(tmp_path / "m.tflite", tmp_path / "place").reason


@pytest.mark.parametrize(
    ("name", "match"), [("none.onnx", "does not exist"), ("broken.onnx", "cannot be read as ONNX")]
)
def test_bad_targets_are_errors(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x3a\xff\xff\xff\x0f")
    with pytest.raises(SourceError, match=match):
        choose(tmp_path / name, tmp_path / "place")
    assert cli.main(["view", str(tmp_path / name)]) == 4


def test_tables_become_an_attachment(tmp_path: Path) -> None:
    folder = export(tmp_path / "small", residual(2), *ALL)
    with Viewer([choose(folder, tmp_path / "place")]) as viewer:
        page = get(viewer.url)[2]
        assert b'<script src="export-model-attach.js" defer>' in page
        assert get(viewer.url, "export-model-attach.js")[0] == 200
        status, headers, body = get(viewer.url, meta(page, "export-model-attachment").lstrip("/"))
    assert (status, headers["content-type"]) == (200, "application/json")
    attachment = json.loads(body)
    assert attachment["signature"] == "netron:attachment"
    metrics, metadata = (
        {(entry["kind"], entry["target"], entry["name"]): entry["value"] for entry in attachment[name]}
        for name in ("metrics", "metadata")
    )
    nodes = [node.name for node in residual(2).graph.node]
    expected = {("node", name, "macs"): at for at, name in enumerate(nodes)}
    expected |= {("node", name, "flops"): 2 * at for at, name in enumerate(nodes)}
    assert metrics == expected
    assert metadata == {
        ("tensor", "a/kernel", "from a/kernel"): "none",
        ("tensor", "a/kernel", "max"): 0.5,
        ("tensor", "a/kernel", "nans"): 0,
        ("tensor", "b/kernel", "from b/kernel"): "folded",
        ("tensor", "b/kernel", "from b/gamma"): "folded",
        ("tensor", "b/kernel", "max before folding"): 1.5,
    }


def test_a_file_that_is_no_export_has_no_attachment(tmp_path: Path) -> None:
    with Viewer([choose(saved(tmp_path / "m.onnx", residual(2)), tmp_path / "place")]) as viewer:
        assert b"attach" not in get(viewer.url)[2]
        assert get(viewer.url, "attachment.json")[0] == 404


def test_several_models_are_served_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shown = []
    for name in "ab":
        path = tmp_path / name / "m.onnx"
        path.write_bytes(name.encode())
        shown.append(Shown(path, "m.onnx", f"<why {name}>", path, beside=path))
    with Viewer(shown) as viewer:
        index = get(viewer.url)[2].decode()
        assert 'href="/1/"' in index
        assert "a/m.onnx" in index
        assert "&lt;why b&gt;" in index
        assert viewer.urls == [viewer.url + "1/", viewer.url + "2/"]
        for number, name in ((1, b"a"), (2, b"b")):
            page = get(viewer.url, f"{number}/")[2]
            assert get(viewer.url, f"{number}{meta(page, 'file')}")[::2] == (200, name)
            assert get(viewer.url, f"{number}/view.js")[0] == 200
        assert get(viewer.url, "data/m.onnx")[0] == 404
        assert get(viewer.url, "3/")[0] == 404
        assert get(viewer.url, "1/", host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("header", "host", "own"),
    [
        ("localhost", "127.0.0.1", True),
        ("[::1]:80", "127.0.0.1", True),
        ("192.168.0.7", "127.0.0.1", False),
        ("192.168.0.7:8080", "0.0.0.0", True),
        ("[fe80::1]:8080", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("box.local:1", "box.local", True),
        ("BOX.local", "box.local", True),
        ("evil.example", "box.local", False),
        ("", "0.0.0.0", False),
        ("a b", "0.0.0.0", False),
        ("999.1.1.1", "0.0.0.0", False),
    ],
)
def test_hosts(header: str, host: str, own: bool) -> None:
    assert is_own(header, host) == own


def test_another_address_can_be_listened_on(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", residual(2))
    with Viewer([Shown(path, "m.onnx")], host="127.0.0.2") as viewer:
        assert viewer.url.startswith("http://127.0.0.2:")
        assert get(viewer.url)[0] == 200
        assert get(viewer.url, host="evil.example")[0] == 403
    with pytest.raises(UsageError, match=r"203\.0\.113\.9"):
        Viewer([Shown(path, "m.onnx")], host="203.0.113.9")


def test_reading_leaves_small_tensors_alone(tmp_path: Path) -> None:
    model = residual(1)
    model.graph.initializer[0].raw_data = b"\x01" * 8
    onnx.save(model, tmp_path / "m.onnx")
    assert read_hollow(tmp_path / "m.onnx").graph.initializer[0].raw_data == b"\x01" * 8


@pytest.mark.slow
def test_a_large_keras_archive_is_shown_by_blocks_of_its_layers(tmp_path: Path) -> None:
    import keras

    x = features = keras.Input((8,), name="features")
    for at in range(110):
        x = keras.layers.Add(name=f"block{at}_add")([x, keras.layers.Dense(8, name=f"block{at}_dense")(x)])
    keras.Model(features, x).save(tmp_path / "deep.keras")
    shown = choose(tmp_path / "deep.keras", tmp_path / "place")
    assert "220 layers are more than 200" in shown.reason
    view = onnx.load(shown.path)
    onnx.checker.check_model(view)
    assert "Dense+Add ×" in "".join(pages(view))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = saved(tmp_path / "large.onnx", residual(100))
    command = [sys.executable, "-m", "exporter", "view", "--no-browser", str(path), str(path)]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert get(url, "2/")[0] == 200
        assert list(temporary.rglob("*.view.onnx"))
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert errors.count("500 nodes are more than 200") == 2
    assert list(temporary.iterdir()) == []
