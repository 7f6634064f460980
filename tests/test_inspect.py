"""`export-model inspect`: what it prints of a known model, and what it finds suspicious."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from exporting import export_here, run_here

from exporter import cli
from exporter.commands.inspect import sparkline
from exporter.suspicions import suspicions


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With NaN, a dead filter, a constant kernel and two identical ones."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    names = ("broken", "constant", "first", "second")
    model = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(5, 3, name="dead")] + [layers.Dense(5, name=name) for name in names]
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
    status, out, _ = inspect(capsys, folder)
    header, first, *_ = out.splitlines()
    assert status == 0
    assert header.split() == ["layer", "class", "output", "params", "share", "bytes", "MACs"]
    assert first.split()[:5] == ["dead", "Conv2D", "?×6×6×5", "140", "53.8%"]


def test_an_export_without_statistics(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    outcome = export_here(archive, tmp_path, formats=("parquet",))
    status, out, err = inspect(capsys, outcome.output_path, "--stats")
    assert (status, out) == (2, "")
    assert "without --stats" in err


def test_an_export_without_tables(capsys: pytest.CaptureFixture[str], archive: Path, tmp_path: Path) -> None:
    outcome = export_here(archive, tmp_path, formats=("dot",))
    status, _, err = inspect(capsys, outcome.output_path)
    assert status == 2
    assert "has no tensors.parquet" in err


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
