"""`export-model summary`: its numbers against Keras, what fits on a screen, and the model that is read back."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from exporting import export_here, run_here
from keras import layers
from models import MODELS
from rich.cells import cell_len

from exporter import cli
from exporter.commands.columns import bar, cell, ended, macs_text, share
from exporter.formats import layer_table
from exporter.formats.block_tree import Entry, Sums, block_tree, summed
from exporter.formats.node_style import TRAIT_SETTINGS
from exporter.formats.outline import Line, fitted
from exporter.records import Layer, Material
from exporter.stored.model import read_model

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def residual_network(blocks: int, frozen: bool = False) -> Any:
    x = keras.Input((None, None, 8), name="image")
    y = x
    for number in range(blocks):
        inner = layers.Conv2D(8, 3, padding="same", name=f"block{number}_conv")(y)
        inner = layers.BatchNormalization(name=f"block{number}_norm")(inner)
        y = layers.Add(name=f"block{number}_add")([y, layers.ReLU(name=f"block{number}_relu")(inner)])
    body = keras.Model(x, y, name="body")
    body.trainable = not frozen
    top = keras.Input((32, 32, 8), name="picture")
    return keras.Model(top, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="pool")(body(top))))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("summary")


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return exported(residual_network(5, frozen=True), place, "net")


def exported(model: Any, place: Path, name: str) -> Path:
    model.save(place / f"{name}.keras")
    outcome = export_here(place / f"{name}.keras", place, formats=("parquet",))
    assert outcome.status == "done", outcome.error
    return Path(outcome.output_path)


def summary(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[str]:
    assert cli.main(["summary", *map(str, words)], run=run_here) == 0
    return capsys.readouterr().out.splitlines()


def numbers_of_keras(model: Any) -> dict[str, int]:
    """The totals in the text of Keras's own `summary()`."""
    text: list[str] = []
    model.summary(print_fn=lambda line, line_break=True: text.append(line))
    found = re.findall(r"(Total|Trainable|Non-trainable) params: ([\d,]+)", ANSI.sub("", "\n".join(text)))
    return {name: int(count.replace(",", "")) for name, count in found}


CHECKED = ["residual", "shared_conv", "transformer_block", "embedding_reversible", "lstm_bidirectional", "attention"]


@pytest.mark.parametrize("name", [*CHECKED, "frozen"])
@pytest.mark.slow
def test_totals_are_those_of_keras(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = residual_network(3, frozen=True) if name == "frozen" else MODELS[name]()
    lines = summary(capsys, exported(model, place, name), "--all", "--width", "120")
    total, trainable, frozen = numbers_of_keras(model).values()
    assert f"{total:,} parameters ({trainable:,} trainable, {frozen:,} not)" in "\n".join(lines)


@pytest.mark.parametrize("name", [*CHECKED, "net"])
@pytest.mark.slow
def test_the_outline_adds_up_at_every_level(name: str, place: Path, folder: Path) -> None:
    stored = read_model(folder if name == "net" else exported(MODELS[name](), place, name))
    entries = block_tree(stored.graph, stored.costs)
    whole = summed(entries)
    assert whole.params == stored.about["params"]
    assert whole.params_trainable == stored.about["params_trainable"]
    assert whole.weight_bytes == stored.about["weight_bytes"]
    assert whole.layers == stored.about["layers"]
    assert whole.macs == (stored.about["macs"] or 0)
    for entry in inside(entries):
        if entry.entries:
            assert summed(entry.entries).params == entry.sums.params
            assert entry.sums.layers - summed(entry.entries).layers == (entry.kind == "model")


def inside(entries: tuple[Entry, ...]) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        yield from inside(entry.entries)


def test_a_nested_model_is_a_branch_and_its_blocks_fold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(capsys, folder, "--width", "100")
    assert lines[0] == "net: 25 layers from net.keras, weights: from the archive"
    names = [re.split(r"(?<=\S)\s{2,}", line)[0] for line in lines]
    assert names[2:7] == ["picture", "body", "├─ image", "└─ block0 … block4 ×5", "   ├─ conv"]
    (row,) = (line for line in lines if line.startswith("body"))
    body = residual_network(5).get_layer("body").count_params()
    assert re.search(rf"\b{body:,}\b", row)
    assert "Functional" in row
    assert re.search(r"\d[\d.]* [kM]?$", row)


def test_depth_limits_the_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [line.split("  ")[0].strip() for line in summary(capsys, folder, "--depth", "1", "--width", "100")]
    assert names[2:6] == ["picture", "body …", "pool", "head"]
    assert names[-1] == "more inside: --all, or --depth N"
    assert "body" in [line.split("  ")[0].strip() for line in summary(capsys, folder, "--depth", "2", "--width", "100")]


@pytest.mark.parametrize("width", [30, 43, 44, 60, 66, 72, 80, 100, 120, 200])
def test_no_line_is_wider_than_asked_for(width: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(capsys, folder, "--all", "--width", str(width))
    assert max(map(cell_len, lines)) <= width
    titles = lines[1].split()
    assert ("MACs" in titles) == (width >= 72)
    assert titles[0] == "layer"


@pytest.mark.parametrize("screen", [5, 12, 24, 60])
def test_it_is_no_longer_than_the_screen(
    screen: int, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", str(screen))
    monkeypatch.setenv("COLUMNS", "80")
    shown = len(summary(capsys, folder))
    assert shown <= max(screen - 1, 9)
    assert len(summary(capsys, folder, "--all")) >= shown


def test_what_is_left_out_is_counted() -> None:
    entries = tuple(leaf(f"layer_{number}", params=number) for number in range(1000))
    lines = fitted(entries, 10, None)
    assert len(lines) == 10
    (gap,) = (line for line in lines if line.left_out)
    assert gap.left_out == 991
    assert sum(line.entry.sums.params for line in lines) == sum(range(1000))


def test_the_largest_block_is_opened_first_and_cut_if_it_does_not_fit() -> None:
    small, large = (
        block(name, [leaf(f"{name}_{n}", params) for n in range(9)]) for name, params in (("a", 1), ("b", 9))
    )
    assert [line.entry.name for line in fitted((small, large), 11, None)] == ["a", "b", *(f"b_{n}" for n in range(9))]
    names = [line.entry.name if not line.left_out else line.left_out for line in fitted((small, large), 9, None)]
    assert names == ["a", "b", "b_0", "b_1", "b_2", 3, "b_6", "b_7", "b_8"]
    assert [line.entry.name for line in fitted((small, large), 7, None)] == ["a", "b"]
    assert [line.closed for line in fitted((small, large), 7, None)] == [True, True]


def leaf(name: str, params: int = 1) -> Entry:
    return Entry(name, "dense", "Dense", "Dense", "3 float32", 1, Sums(1, params))


def block(name: str, entries: list[Entry]) -> Entry:
    return Entry(name, "block", "", "", "3 float32", 1, summed(entries), tuple(entries))


@pytest.mark.slow
def test_a_source_is_exported_aside(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MODELS["residual"]().save(tmp_path / "small.keras")
    lines = summary(capsys, tmp_path / "small.keras", "-q")
    assert lines[0].startswith("small: ")
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]


def test_an_export_without_the_catalogue_says_what_to_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert cli.main(["summary", str(tmp_path)]) == 2
    assert "--to parquet" in capsys.readouterr().err
    assert cli.main(["summary", str(tmp_path / "nothing")]) == 4
    assert cli.main(["summary", str(folder), "--width", "3"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_colours_are_for_terminals_that_want_them(variables: dict[str, str], coloured: bool, folder: Path) -> None:
    """In a terminal of its own, made by the system."""
    environment = {"COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color"} | variables
    assert bool(ANSI.search(in_a_terminal(folder, environment))) == coloured


def in_a_terminal(folder: Path, environment: dict[str, str]) -> str:
    import os
    import pty

    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "exporter", "summary", str(folder)]
    with os.fdopen(ours, "rb", buffering=0) as stream:
        child = subprocess.Popen(command, stdout=theirs, env=kept | environment)
        os.close(theirs)
        output = b""
        # A terminal whose other end is closed answers with an error on Linux.
        with contextlib.suppress(OSError):
            while piece := stream.read(65536):
                output += piece
        assert child.wait() == 0
    return output.decode()


def test_a_pipe_gets_no_colours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not ANSI.search("\n".join(summary(capsys, folder)))


@pytest.mark.slow
def test_names_cannot_command_the_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = keras.Input((4,), name="\x1b[31m層層層層層層層層層層層層層層層層層層層層")
    lines = summary(capsys, exported(keras.Model(x, layers.Dense(3)(x)), place, "odd"), "--width", "50")
    assert "\x1b" not in "\n".join(lines)
    assert max(map(cell_len, lines)) <= 50


def test_cells() -> None:
    assert cell("abcdefghij", 5, right=False) == "ab…ij"
    assert cell("ab", 5, right=True) == "   ab"
    assert [cell_len(cell("層" * 9, width, right=False)) for width in range(1, 10)] == list(range(1, 10))
    assert ended("abcdef", 4) == "abc…"
    assert [share(0, 10), share(1, 10), share(1, 10**6), share(10, 10)] == ["", "10.0 %", "<0.1 %", "100.0 %"]
    assert [bar(0, 10), bar(10, 10), len(bar(1, 10)), bar(1, 0)] == ["", "█" * 10, 1, ""]
    texts = [
        macs_text(Sums(macs=macs, macs_unknown=unknown)) for macs, unknown in ((0, 0), (5000, 0), (5000, 1), (0, 1))
    ]
    assert texts == ["0", "5 k", "≥5 k", "?"]
    assert Line("", leaf("x")).left_out == 0


@pytest.mark.parametrize("name", ["residual", "shared_conv", "transformer_block", "attention", "lstm_state"])
@pytest.mark.slow
def test_a_model_read_back_is_the_one_that_was_written(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the names of activations inside the model, and for what is live when, which no table has."""
    written: list[Material] = []
    write = layer_table.write

    def overheard(material: Material, folder: Path) -> tuple[str, ...]:
        written.append(material)
        return write(material, folder)

    monkeypatch.setattr(layer_table, "write", overheard)
    stored = read_model(exported(MODELS[name](), place, name))
    (material,) = written
    assert stored.graph == replace(material.graph, layers=tuple(map(nameless, material.graph.layers)))
    assert material.costs is not None
    assert stored.costs == replace(material.costs, live_activation_bytes={})


def nameless(layer: Layer) -> Layer:
    inputs, outputs = (
        specs and tuple(replace(spec, name="") for spec in specs) for specs in (layer.inputs, layer.outputs)
    )
    return replace(layer, inputs=inputs, outputs=outputs)


def test_only_the_settings_that_are_asked_for_are_kept(folder: Path) -> None:
    whole, lean = read_model(folder), read_model(folder, settings=TRAIT_SETTINGS, weights=False)
    assert lean.graph.weights == ()
    assert all(set(json.loads(layer.config)) <= TRAIT_SETTINGS for layer in lean.graph.layers)
    assert block_tree(lean.graph, lean.costs) == block_tree(whole.graph, whole.costs)


# Writes the tables of so many layers, all of them different in size.
CODE = """
import json, sys
from pathlib import Path
from exporter.costs.model_costs import job_costs
from exporter.formats import layer_table, model_table
from exporter.records import Edge, Job, Layer, Material, ModelGraph, TensorSpec

count = int(sys.argv[1])
def layer(i):
    units = 16 + (i * 7919) % 997
    spec = (TensorSpec("t", (None, 8, 8, units), "float32"),)
    config = json.dumps({"name": f"dense_{i}", "units": units, "activation": "relu", "text": "x" * 2000})
    before = (f"dense_{i - 1}",) if i else ()
    return Layer(i, f"dense_{i}", "Dense", f"dense_{i}", 0, None, True, spec, spec, 9, 9, 9, 36, 1, before, config)
edges = tuple(Edge(f"dense_{i}", 0, 0, f"dense_{i + 1}", 0, 0, (None, 8, 8, 16), "float32") for i in range(count - 1))
graph = ModelGraph("net", (), (), tuple(map(layer, range(count))), edges, ())
job = Job("net.keras", "keras_archive", "net", "outputs/net", ("parquet",), "f", "d")
material = Material(job, graph, costs=job_costs(job, graph, None), source="net.keras", weights="in the file")
layer_table.write(material, Path())
model_table.write(material, Path())
"""
SHOW = """
import sys
from exporter import cli, memory
status = cli.main(["summary", "."])
print(memory.peak_rss_bytes(), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_layers_take_little_memory_and_one_screen(tmp_path: Path) -> None:
    """With 200 MB of settings, which are not kept."""
    subprocess.run([sys.executable, "-c", CODE, "100000"], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-c", SHOW], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert int(done.stderr.split()[-1]) < 500 * 2**20
    lines = done.stdout.splitlines()
    assert len(lines) < 50
    assert "100,000 layers" in lines[0]
    assert any(re.match(r"… 99,9\d\d more", line) for line in lines)
