"""After a batch, the copies of tables are begun that the first query would have begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batches import Accidents, make_model

from exporter import cli
from exporter.query import background, compaction, copying, places, preparing

TABLES = {"models", "layers", "tensors", "edges", "nodes"}


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The modules that were started, with their request, where more than two exports are many."""
    calls: list[tuple[str, str]] = []

    def start(module: str, request: str) -> bool:
        calls.append((module, request))
        return True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compaction, "FEW_FILES", 2)
    monkeypatch.setattr(background, "start", start)
    return calls


def run(*names: str) -> int:
    for name in names:
        make_model(Path(f"{name}.onnx"))
    return cli.main(["batch", *(f"{name}.onnx" for name in names), "--to", "parquet", "--jobs", "1"], Accidents())


@pytest.mark.slow
def test_copies_are_begun_of_many_exports_only(started: list[tuple[str, str]], tmp_path: Path) -> None:
    assert run("a", "b") == 0
    assert started == []
    assert run("c") == 0
    assert started == [("exporter.query.preparing", str(tmp_path / "outputs"))]


@pytest.mark.slow
def test_a_query_finds_the_copies_of_all_tables(started: list[tuple[str, str]]) -> None:
    assert run("a", "b", "c") == 0
    (_, folder) = started[-1]
    assert set(preparing.make_all(folder)) == TABLES
    found = places.find(["outputs"], TABLES).local
    for table in TABLES:
        compacted = compaction.up_to_date(table, found[table])
        assert compacted is not None
        assert (compacted.changed, compacted.stale) == ([], [])
    started.clear()
    assert cli.main(["query", "SELECT count(*) FROM layers"]) == 0
    assert started == []


def test_a_folder_that_is_not_there_is_nothing_to_prepare(started: list[tuple[str, str]]) -> None:
    assert not preparing.prepare("nowhere")
    assert preparing.make_all("nowhere") == []
    assert started == []


def test_what_is_named_like_a_pattern_is_in_no_copy(tmp_path: Path) -> None:
    """DuckDB would take it for one; queries read such files themselves."""
    files = [places.LocalFile(str(tmp_path / name / "models.parquet"), 0, 0) for name in ("a", "b[1]", "c*")]
    assert places.plain(files) == files[:1]


def test_the_process_that_copies_is_told_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads its request from standard input, and gives way to everybody else."""
    monkeypatch.setattr(os, "nice", lambda level: seen.append(level))
    seen: list[object] = []
    (tmp_path / "request").write_text('"outputs"')
    with open(tmp_path / "request") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        seen.append(background.request())
    assert seen == [background.LOWEST_PRIORITY, "outputs"]


def test_the_switch_for_copies_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(background.SWITCH, "1")
    monkeypatch.setattr(compaction, "FEW_FILES", 0)
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    assert not preparing.prepare(str(tmp_path / "outputs"))
    assert not copying.start("models", [places.LocalFile(str(tmp_path / "models.parquet"), 0, 0)])
    assert not (tmp_path / "cache").exists()
