"""The command itself, with real workers: what a user sees of a batch from its start to the second run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import keras
import onnx
import pytest
from batch_runs import weights_file

from exporter import files

pytestmark = pytest.mark.slow
LIMIT_BYTES = 2 * 10**9
FIRST = "first.parquet"


def batch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "batch", *words, "-o", str(folder / "out")]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)


def rows(folder: Path, columns: str, table: str = "out/batch.parquet") -> list[tuple[object, ...]]:
    return duckdb.sql(f"SELECT {columns} FROM '{folder}/{table}' ORDER BY model").fetchall()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound models and one that was cut."""
    folder = tmp_path_factory.mktemp("zoo")
    for number in (1, 2):
        keras.utils.set_random_seed(number)
        net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
        net.save(folder / f"sound{number}.keras")
    content = (folder / "sound1.keras").read_bytes()
    (folder / "cut.keras").write_bytes(content[: len(content) // 2])
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> subprocess.CompletedProcess[str]:
    """Its table is kept, whatever batches come after it."""
    words = ["sound1.keras", "cut.keras", "sound2.keras", "--jobs", "2", "--max-memory", str(LIMIT_BYTES)]
    ended = batch(folder, *words)
    shutil.copy(folder / "out" / "batch.parquet", folder / FIRST)
    return ended


def test_the_others_go_on_and_the_status_tells(first: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert first.returncode == 4, first.stderr
    assert "Traceback" not in first.stderr + first.stdout
    found = rows(folder, "model, status, verification, error_type", FIRST)
    assert found == [
        ("cut.keras", "failed", None, "SourceError"),
        ("sound1", "done", "passed", None),
        ("sound2", "done", "passed", None),
    ]
    for name in ("sound1", "sound2"):
        onnx.checker.check_model(str(folder / "out" / name / "model.onnx"), full_check=True)
    assert not (folder / "out" / "cut").exists()


def test_the_sum_of_memory_stays_below_the_limit(first: subprocess.CompletedProcess[str], folder: Path) -> None:
    """The report's own number is the sum over all processes, looked at four times a second."""
    peaks = [row[0] for row in rows(folder, "tree_peak_rss_bytes", FIRST) if row[0]]
    assert len(peaks) == 2
    assert all(isinstance(peak, int) and 10**8 < peak < LIMIT_BYTES for peak in peaks)


def test_the_second_run_only_does_what_is_left(first: subprocess.CompletedProcess[str], folder: Path) -> None:
    before = {name: files.sha256(folder / "out" / name / "manifest.json") for name in ("sound1", "sound2")}
    (folder / "out" / "sound2" / "layers.parquet").write_bytes(b"damaged")
    second = batch(folder, "sound1.keras", "sound2.keras", "--log-format", "json")
    assert second.returncode == 0, second.stderr
    events = [json.loads(line) for line in second.stderr.splitlines()]
    assert {event["model"] for event in events if event["event"] == "model_started"} == {"sound2"}
    assert rows(folder, "model, status") == [("sound1", "skipped"), ("sound2", "done")]
    assert files.sha256(folder / "out" / "sound1" / "manifest.json") == before["sound1"]
    assert duckdb.sql(f"SELECT count(*) FROM '{folder}/out/sound2/layers.parquet'").fetchall() == [(3,)]


def test_a_worker_that_never_answers_is_ended(folder: Path) -> None:
    """A function that hangs stands for a file that a library never gets through."""
    (folder / "hangs.py").write_text("import time\n\ndef make():\n    time.sleep(600)\n")
    # What needs no TensorFlow has time enough on a busy machine, too.
    other = weights_file(folder / "weights.safetensors", 3)
    ended = batch(folder, "hangs.py:make", other, "--trust-code", "--timeout", "20s", "--to", "parquet")
    assert ended.returncode == 8, ended.stderr
    assert "took longer than --timeout 20 s" in ended.stderr + ended.stdout
    assert [row[0] for row in rows(folder, "status")] == ["failed", "done"]
