"""The real command with an object store: the same files as in a folder, and nothing is lost when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import onnx
import pytest
from exporting import NO_NETWORK, REPOSITORY, command, manifest
from onnx import TensorProto, helper
from stores import BUCKET, S3, Asked

pytestmark = pytest.mark.slow
# An expired lease of a killed process is one of this machine, and so taken over at once.
PATIENCE_SECONDS = 300.0


def relu(path: Path, name: str = "Relu") -> None:
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 2]) for each in "xy"]
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node(name, ["x"], ["y"])], "g", ends[:1], ends[1:])), path
    )


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)} | NO_NETWORK
    settings |= {"no_proxy": "127.0.0.1"}
    return subprocess.Popen([sys.executable, "-m", "exporter", *words], cwd=folder, env=settings)


def test_a_model_in_a_store_is_the_one_in_a_folder(s3: S3, tmp_path: Path) -> None:
    words = ["mobilenet_v3_small", "--weights", "random", "--no-verify", "--to", "onnx,parquet,svg", "--external-data"]
    words += ["always"]
    environment = {"no_proxy": "127.0.0.1", "TMPDIR": str(tmp_path)}
    for output in ("here", s3.address):
        result = command([*words, "-o", output], cwd=tmp_path, environment=environment)
        assert result.status == 0, result.text
    (here,) = (tmp_path / "here").iterdir()
    for record in manifest(here)["files"]:
        assert s3.content(f"runs/{here.name}/{record['name']}") == (here / record["name"]).read_bytes()
    assert any(asked.query.startswith("partNumber") for asked in s3.asked), "the weights went in parts"
    again = command([*words, "-o", s3.address], cwd=tmp_path, environment=environment)
    assert "up to date" in again.out
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "moment", ["GET relu.onnx", "PUT layers.parquet", "DELETE manifest.json", "DELETE model.dot", "PUT manifest.json"]
)
def test_a_command_that_is_killed_is_made_good(moment: str, s3: S3, tmp_path: Path) -> None:
    """While it replaces an older export, which is whole, or not there, but never half."""
    relu(tmp_path / "relu.onnx")
    source, words = f"s3://{BUCKET}/models/relu.onnx", ["-o", s3.address, "--to"]
    s3.put("models/relu.onnx", (tmp_path / "relu.onnx").read_bytes())
    assert start([source, *words, "parquet,dot"], tmp_path).wait(PATIENCE_SECONDS) == 0
    before = {key: s3.content(key) for key in s3.names("runs/")}
    relu(tmp_path / "relu.onnx", "Sigmoid")
    s3.put("models/relu.onnx", (tmp_path / "relu.onnx").read_bytes())
    started, reached = Future[subprocess.Popen[bytes]](), threading.Event()

    def kill(asked: Asked) -> str | None:
        if asked.what == moment and not reached.is_set():
            started.result().send_signal(signal.SIGKILL)
            started.result().wait()
            reached.set()
        # Nothing that a dead process has asked for arrives.
        return "503 Service Unavailable" if reached.is_set() else None

    s3.fault = kill
    started.set_result(start([source, *words, "parquet"], tmp_path))
    assert started.result().wait(PATIENCE_SECONDS) == -signal.SIGKILL
    s3.fault = lambda asked: None
    left = {key: s3.content(key) for key in s3.names("runs/") if "lease" not in key}
    assert left == before or "runs/relu/manifest.json" not in left
    assert start([source, *words, "parquet"], tmp_path).wait(PATIENCE_SECONDS) == 0
    names = ["edges.parquet", "layers.parquet", "manifest.json", "models.parquet", "nodes.parquet", "tensors.parquet"]
    assert s3.names("runs/") == [f"runs/relu/{name}" for name in names]
    assert s3.unfinished_uploads() == 0
    assert (
        command([source, *words, "parquet", "-o", "here"], cwd=tmp_path, environment={"no_proxy": "127.0.0.1"}).status
        == 0
    )
    for name in names[:2]:
        assert s3.content(f"runs/relu/{name}") == (tmp_path / "here" / "relu" / name).read_bytes()
    assert not list(tmp_path.glob("export-model-*"))
