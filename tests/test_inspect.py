"""`export-model inspect`: what it prints of a known model, and what it finds suspicious."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from exporting import export_here, run_here
from rich.cells import cell_len

from exporter import cli
from exporter.commands.inspection import Look, lines, totals
from exporter.commands.listing import layer_columns, sparkline, table
from exporter.commands.row_choice import SORTS, Choice, chosen
from exporter.errors import UsageError
from exporter.suspicions import suspicions

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With NaN, a dead filter, a constant kernel and two identical ones."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    names = ("broken", "constant", "first", "second")
    model = keras.Sequential(
        [layers.Input((8, 8, 3), name="input_layer"), layers.Conv2D(5, 3, name="dead")]
        + [layers.Dense(5, name=name) for name in names]
    )
    dead, broken, constant, first, second = (model.get_layer(name) for name in ("dead", *names))
    kernel = dead.kernel.numpy()
    kernel[..., 2] = 0
    dead.kernel.assign(kernel)
    kernel = broken.kernel.numpy()
    kernel[0, 0], kernel[1, 1] = np.nan, np.inf
    broken.kernel.assign(kernel)
    constant.kernel.assign(np.full((5, 5), 0.5))
    second.kernel.assign(first.kernel.numpy())
    path = tmp_path_factory.mktemp("inspect") / "odd.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome = export_here(archive, tmp_path_factory.mktemp("outputs"), formats=("parquet",), stats=True)
    assert outcome.status == "done", outcome.error
    return Path(outcome.output_path)


BLOCKS = 20
LAYERS = 4 + 2 + 4 * BLOCKS


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a model, with blocks that repeat, and more layers than a page has lines."""
    layers = keras.layers
    x = keras.Input((8,), name="image")
    y = layers.Dense(64, name="wide")(x)
    for number in range(BLOCKS):
        inner = layers.Dense(64, name=f"block{number}_dense", use_bias=False)(y)
        inner = layers.LayerNormalization(name=f"block{number}_norm")(inner)
        y = layers.Add(name=f"block{number}_add")([y, layers.ReLU(name=f"block{number}_relu")(inner)])
    body = keras.Model(x, y, name="body")
    top = keras.Input((8,), name="picture")
    pool = layers.Reshape((64,), name="pool")(body(top))
    place = tmp_path_factory.mktemp("many")
    keras.Model(top, layers.Dense(3000, name="head")(pool)).save(place / "many.keras")
    outcome = export_here(place / "many.keras", place, formats=("parquet",))
    return Path(outcome.output_path)


def inspect(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = cli.main(["inspect", *map(str, words)], run=run_here)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


SUSPICIOUS = [
    "broken/kernel: 1 NaN and 1 infinite of 25 elements",
    "dead/kernel: 1 of 5 output channels are all zero",
    "constant/kernel: all 25 elements are 0.5",
    "identical: first/kernel, second/kernel",
    "5 vectors of zeros and 0 of ones, as initializers make them",
]


def test_what_is_suspicious(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = inspect(capsys, folder, "--stats")
    assert status == 0
    table, _, found = out.partition("\nsuspicious:\n")
    assert [line.strip() for line in found.splitlines()] == SUSPICIOUS
    assert any(bar in table for bar in "▁▂▃▄▅▆▇█")


@pytest.mark.slow
def test_a_source_is_exported_first(capsys: pytest.CaptureFixture[str], archive: Path, folder: Path) -> None:
    before = inspect(capsys, folder, "--stats")
    after = inspect(capsys, archive, "--stats", "--quiet")
    assert after == before


def test_the_table_is_folded_to_the_largest(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    _, out, _ = inspect(capsys, folder, "--stats", "--top", "2")
    lines = out.splitlines()
    assert lines[1].startswith("dead/kernel")
    assert lines[3] == "… and 8 smaller weights, 400 B (--all)"


@pytest.mark.parametrize("flags", [("--stats",), ()])
def test_json_and_csv_have_the_same_rows(
    capsys: pytest.CaptureFixture[str], folder: Path, flags: tuple[str, ...]
) -> None:
    _, out, _ = inspect(capsys, folder, *flags, "--all", "--format", "json")
    report = json.loads(out)
    _, out, _ = inspect(capsys, folder, *flags, "--all", "--format", "csv")
    key = "tensor" if flags else "layer"
    assert [row[key] for row in csv.DictReader(io.StringIO(out))] == [row[key] for row in report["rows"]]
    assert report["suspicious"] == (SUSPICIOUS if flags else [])


def test_layers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """A model that fits on a page is shown as Keras shows it, layer by layer, with Keras's totals."""
    status, out, _ = inspect(capsys, folder)
    header, _, dead, broken, *_ = out.splitlines()
    assert status == 0
    assert re.split("  +", header) == ["layer", "class", "output", "params", "share", "bytes", "MACs", "connected to"]
    assert dead.split() == ["dead", "Conv2D", "?×6×6×5", "140", "53.8", "%", "560", "B", "4.86", "k", "input_layer"]
    assert broken.split()[-1] == "dead"
    assert out.splitlines()[-2] == "6 layers, 260 parameters (260 trainable, 0 not)"


@pytest.mark.parametrize(
    ("macs", "unknown", "text"), [(None, 0, ""), (0, 2, ""), (0, 0, "0"), (2000, 0, "2 k"), (2000, 1, "≥2 k")]
)
def test_operations_that_are_unknown_are_not_none(macs: int | None, unknown: int, text: str) -> None:
    about = {"layers": 3, "params": 0, "params_trainable": 0, "weight_bytes": 0, "weights_by_dtype": [], "weights": "x"}
    _, ((last, _),) = totals(about | {"macs": macs, "layers_without_cost": unknown})
    assert last == f"0 B of weights{f', {text} MACs' if text else ''}; weights: x"


@pytest.mark.parametrize("order", SORTS)
def test_orders(capsys: pytest.CaptureFixture[str], many: Path, order: str) -> None:
    _, out, _ = inspect(capsys, many, "--sort", order, "--all", "--format", "json")
    rows = json.loads(out)["rows"]
    key = {"bytes": "weight_bytes", "name": "layer"}.get(order, order)
    if order == "index":
        assert [row["layer"] for row in rows] == pq.read_table(many / "layers.parquet")["layer"].to_pylist()
    else:
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=order != "name")
        assert len(values) == LAYERS


def test_the_largest(capsys: pytest.CaptureFixture[str], many: Path) -> None:
    _, out, _ = inspect(capsys, many, "--sort", "params", "--top", "2")
    _, first, second, rest, *_ = out.splitlines()
    assert first.split()[0] == "head"
    assert second.split()[0] == "body/block0_dense"
    assert rest.startswith(f"… and {LAYERS - 2} smaller layers, ")
    _, csv_out, _ = inspect(capsys, many, "--top", "2", "--format", "csv")
    assert [row["layer"] for row in csv.DictReader(io.StringIO(csv_out))] == ["head", "body/block0_dense"]


def test_what_repeats_is_folded(capsys: pytest.CaptureFixture[str], many: Path) -> None:
    """More layers than the page has lines: blocks, in the model's own order, and the same totals."""
    _, folded, _ = inspect(capsys, many)
    _, whole, _ = inspect(capsys, many, "--all")
    lines = folded.splitlines()
    assert len(lines) < 25
    assert any(f"×{BLOCKS}" in line for line in lines)
    assert lines[-1] == "every layer: --all"
    assert lines[-3:-1] == whole.splitlines()[-2:]
    assert len(whole.splitlines()) == 1 + LAYERS + 2


def test_trees(capsys: pytest.CaptureFixture[str], many: Path) -> None:
    _, out, _ = inspect(capsys, many, "--format", "tree")
    assert any(line.startswith("├─ ") for line in out.splitlines())
    _, outer, _ = inspect(capsys, many, "--format", "tree", "--depth", "1")
    assert not any(line.startswith(("├─", "└─")) for line in outer.splitlines())
    _, whole, _ = inspect(capsys, many, "--format", "tree", "--all")
    names = [line.split("  ")[0] for line in whole.splitlines()]
    assert "body" in names
    assert sum(line.startswith("  ") for line in whole.splitlines()) == LAYERS - 4


def test_depth_of_rows(capsys: pytest.CaptureFixture[str], many: Path) -> None:
    _, out, _ = inspect(capsys, many, "--depth", "1", "--format", "csv")
    assert [row["layer"] for row in csv.DictReader(io.StringIO(out))] == ["picture", "body", "pool", "head"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "tree", "--top", "3"], "a tree has all layers"),
        (["--all", "--top", "3"], "it leaves rows out"),
        (["--stats", "--sort", "macs"], "weights have no macs"),
        (["--sort", "colour"], "is not one of"),
        (["--depth", "0"], "--depth"),
    ],
)
def test_what_contradicts_itself(capsys: pytest.CaptureFixture[str], folder: Path, words: list[str], says: str) -> None:
    status, out, err = inspect(capsys, folder, *words)
    assert (status, out) == (2, "")
    assert says in err


def test_columns_fit_a_narrow_terminal() -> None:
    row = {"layer": "a/very/long/name/of/a/layer/that/goes/on", "class": "Dense", "output_shapes": [[None, 5]]}
    row |= {"params": 1, "weight_bytes": 4, "macs": None, "connected_to": ["one", "another", "and/a/third/with/more"]}
    lines = [text for ((text, _),) in table(lambda: iter([row]), layer_columns(10), 90)]
    assert all(len(line) <= 90 for line in lines)
    assert lines[1].startswith("a/very/")
    assert "…" in lines[1]


def test_a_terminal_gets_a_pager_for_more_than_a_screen(
    capsys: pytest.CaptureFixture[str], many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", lambda text, color=None: paged.extend(text))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setenv("COLUMNS", "80")
    inspect(capsys, many)
    assert paged == []
    _, out, _ = inspect(capsys, many, "--all")
    assert out == ""
    assert len(paged) == 1 + LAYERS + 2
    assert all(cell_len(ANSI.sub("", line.rstrip("\n"))) <= 80 for line in paged)


@pytest.mark.parametrize(
    "style", ["table", *(pytest.param(n, marks=pytest.mark.slow) for n in ("csv", "json", "tree"))]
)
def test_many_rows_are_a_stream(many: Path, tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the rows take no more memory."""
    monkeypatch.setattr("exporter.stored.tables.BATCH_ROWS", 50)
    peaks = [peak_of_listing(many, tmp_path, copies, style) for copies in (4, 4, 40)]
    assert peaks[2] < 1.5 * peaks[1]


def peak_of_listing(many: Path, place: Path, copies: int, style: str) -> int:
    folder = place / str(copies)
    folder.mkdir(exist_ok=True)
    shutil.copy(many / "models.parquet", folder)
    rows = pq.read_table(many / "layers.parquet").take(list(range(LAYERS))[:50])
    with pq.ParquetWriter(folder / "layers.parquet", rows.schema) as writer:
        for _ in range(copies):
            writer.write_table(rows)
    tracemalloc.start()
    count = sum(1 for _ in lines(folder, Look(style, False, True, Choice())))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 50 * copies
    return peak


@pytest.mark.slow
def test_an_export_without_statistics(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    outcome = export_here(archive, tmp_path, formats=("parquet",))
    status, out, err = inspect(capsys, outcome.output_path, "--stats")
    assert (status, out) == (2, "")
    assert "without --stats" in err


@pytest.mark.slow
def test_an_export_without_tables(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    outcome = export_here(archive, tmp_path, formats=("dot",))
    status, _, err = inspect(capsys, outcome.output_path)
    assert status == 2
    assert "has no layers.parquet" in err


def test_a_table_that_is_broken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tensors.parquet").write_bytes(b"PAR1")
    status, _, err = inspect(capsys, tmp_path, "--stats")
    assert status == 4
    assert "cannot be read" in err


def test_a_source_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = inspect(capsys, tmp_path / "missing.keras")
    assert status == 4
    assert "missing.keras" in err


@pytest.mark.parametrize(
    ("counts", "line"),
    [(None, ""), ([3], "█"), ([0, 1, 800, 400], " ▁█▄"), ([1] * 32, "█" * 16)],
)
def test_sparklines(counts: list[int] | None, line: str) -> None:
    assert sparkline(counts) == line


def test_many_findings_are_folded() -> None:
    row: dict[str, Any] = {"shape": [4], "nans": 1, "infs": 0, "dead_filters": None, "distinct": 3, "min": 0.0}
    rows = [row | {"tensor": f"w{number}", "sha256": str(number), "dtype": "float32"} for number in range(30)]
    found = suspicions(rows, 5)
    assert len(found) == 6
    assert found[-1] == "… and 25 more like it (--all shows them)"
    assert len(suspicions(rows, None)) == 30


def test_statistics_need_a_table(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    status = cli.main([str(archive), "--to", "dot", "--stats", "-o", str(tmp_path)], run=run_here)
    assert status == 2
    assert "add parquet to --to" in capsys.readouterr().err


def test_an_order_that_there_is_not_is_told_with_those_that_there_are() -> None:
    """From Python, where no flag has been checked."""
    with pytest.raises(UsageError, match="there is no such order: there are params, bytes, macs, name, index"):
        chosen("layers", [], Choice(order="weights"))
