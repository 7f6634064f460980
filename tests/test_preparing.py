"""After a batch, the copies of tables are begun that the first query would have begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import Accidents, make_model

from exporter import cli
from exporter.query import compaction, copying, preparing
from exporter.query.places import LocalFile


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The tables of which a copy was begun, with the number of files, where more than two files are many."""
    calls: list[tuple[str, int]] = []

    def start(table: str, files: list[LocalFile]) -> bool:
        calls.append((table, len(files)))
        return True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compaction, "FEW_FILES", 2)
    monkeypatch.setattr(copying, "start", start)
    return calls


def run(*names: str) -> int:
    for name in names:
        make_model(Path(f"{name}.onnx"))
    return cli.main(["batch", *(f"{name}.onnx" for name in names), "--to", "parquet", "--jobs", "1"], Accidents())


@pytest.mark.slow
def test_copies_are_begun_of_many_exports_only(started: list[tuple[str, int]]) -> None:
    assert run("a", "b") == 0
    assert started == []
    assert run("c") == 0
    tables = {"models", "layers", "tensors", "edges", "nodes"}
    assert {table for table, _ in started} == tables
    assert {count for _, count in started} == {3}


@pytest.mark.slow
def test_a_copy_that_is_up_to_date_is_not_made_again(
    started: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("a", "b", "c") == 0
    started.clear()

    def fresh(table: str, files: list[LocalFile]) -> compaction.Compacted | None:
        return compaction.Compacted("copy", [], []) if table != "nodes" else None

    monkeypatch.setattr(compaction, "up_to_date", fresh)
    assert preparing.prepare("outputs") == ["nodes"]
    assert started == [("nodes", 3)]


def test_a_folder_that_is_not_there_is_nothing_to_prepare(started: list[tuple[str, int]]) -> None:
    assert preparing.prepare("nowhere") == []


def test_the_switch_for_copies_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(copying.SWITCH, "1")
    monkeypatch.setattr(compaction, "FEW_FILES", 0)
    assert run("a") == 0
    assert preparing.prepare("outputs") == []
    assert not (tmp_path / "cache").exists()
