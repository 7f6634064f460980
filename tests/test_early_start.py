"""Which command lines begin a process that reads files before anything else is known."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import keras
import psutil
import pytest

from exporter.early_start import will_read


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m.keras --to parquet,dot", True),
        ("m.keras --to=svg", True),
        ("export folder/M.H5 --to parquet", True),
        ("inspect m.keras", True),
        ("summary m.onnx", True),
        ("m.keras", False),
        ("m.keras --to onnx,parquet", False),
        ("m.keras --to netron", False),
        ("resnet50 --to parquet", False),
        ("m.keras --to parquet --help", False),
        ("query 'SELECT 1'", False),
        ("batch m.keras --to parquet", False),
        ("", False),
    ],
)
def test_what_will_be_read(line: str, expected: bool) -> None:
    assert will_read(shlex.split(line)) is expected


@pytest.mark.slow
def test_it_leaves_no_process_behind(tmp_path: Path) -> None:
    archive = tmp_path / "m.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(archive)
    words = [sys.executable, "-m", "exporter", str(archive), "--to", "parquet", "-o", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "m" / "layers.parquet").exists()
    deadline = time.monotonic() + 300
    while left := [each.pid for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(tmp_path)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
