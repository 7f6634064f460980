"""A batch on a Ray cluster of two nodes gives what it gives on this machine, also where a node is lost in the middle.

The batch is run by the real command: Ray's client and TensorFlow, which other tests import, hang in one process.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from batch_runs import MANY_TENSORS, PATIENCE_SECONDS, BatchRun, digests, held, manifest_of, weights_file
from stores import BUCKET, S3, Asked

pytestmark = pytest.mark.cluster


class Cluster:
    """Two nodes on this machine, each with one processor."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._settings: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": 100 * 2**20,
            "include_dashboard": False,
        }
        # A node that has ended is lost after 2 instead of 15 seconds; one that is only slow is waited for.
        impatient = {"health_check_period_ms": 500, "health_check_timeout_ms": 60_000}
        impatient |= {"health_check_failure_threshold": 3}
        head = self._settings | {"_system_config": impatient}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.second = self._cluster.add_node(**self._settings)

    def lose_the_second_node(self) -> None:
        """With all that runs on it: Ray's processes there notice after up to a second, and go on until then."""
        (raylet,) = self.second.all_processes["raylet"]
        lost = psutil.Process(raylet.process.pid).children(recursive=True)
        self._cluster.remove_node(self.second, allow_graceful=False)
        _, alive = psutil.wait_procs(lost, PATIENCE_SECONDS)
        assert alive == []

    def add_it_again(self) -> None:
        self.second = self._cluster.add_node(**self._settings)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(server: S3) -> Iterator[Cluster]:
    """Its nodes have the credentials of the store in their environment, as `docs/batches.md` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray gives up after half a minute, in which a busy machine may not have started it.
        patch.setenv("RAY_gcs_server_port_wait_time_s", "300")
        cluster = Cluster()
        yield cluster
        cluster.end()


def workers(folder: Path) -> list[psutil.Process]:
    """Those that nodes started for jobs in this folder."""
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if "exporter.worker" in (each.info["cmdline"] or []) and has_job_in(each, folder)]


def has_job_in(worker: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in Path(worker.cmdline()[-3]).read_text()
    except (OSError, psutil.Error, IndexError):
        return False


def test_the_same_files_as_here_and_then_nothing_to_do(cluster: Cluster, tmp_path: Path) -> None:
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 3 + number) for number in range(4)]
    ray = ["--executor", "ray", "--ray-address", cluster.address]
    there = BatchRun(tmp_path, [*sources, "-o", "there", *ray])
    assert there.status() == 0, there.text
    assert "2 nodes, 2 CPUs" in there.text
    assert "m0: parquet: " in there.text
    chatter = [line for line in there.text.splitlines() if "ray" in line.lower() and "Ray cluster" not in line]
    assert chatter == []
    here = BatchRun(tmp_path, [*sources, "-o", "here"])
    assert here.status() == 0, here.text
    assert digests(tmp_path / "there") == digests(tmp_path / "here")
    assert not list((tmp_path / "there").rglob(".*"))
    again = BatchRun(tmp_path, [*sources, "-o", "there", *ray])
    assert again.status() == 0, again.text
    assert "4 up to date" in again.text
    assert "started" not in again.text


def test_an_onnx_file_too(cluster: Cluster, tmp_path: Path) -> None:
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense", "units": 3}}
    start = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "x"}}
    model = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [start, dense]}}
    (tmp_path / "m.json").write_text(json.dumps(model))
    ray = ["--executor", "ray", "--ray-address", cluster.address]
    for output, more in ("there", ray), ("here", []):
        batch = BatchRun(tmp_path, ["m.json", "--weights", "random", "-o", output, *more], "onnx,parquet")
        assert batch.status() == 0, batch.text
        assert manifest_of(tmp_path / output / "m")["verification"]["status"] == "passed"
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


def test_a_node_is_lost_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 2 * MANY_TENSORS) for number in range(3)]
    there = BatchRun(tmp_path, [*sources, "-o", "there", "--executor", "ray"], RAY_ADDRESS=cluster.address)
    with held(partial(workers, tmp_path), 2):
        there.wait_for(": started", 2)
    cluster.lose_the_second_node()
    try:
        assert there.status() == 0, there.text
    finally:
        cluster.add_it_again()
    assert "started, attempt 2" in there.text
    assert "aylet" not in there.text
    here = BatchRun(tmp_path, [*sources, "-o", "here"])
    assert here.status() == 0, here.text
    assert digests(tmp_path / "there") == digests(tmp_path / "here")
    assert not list((tmp_path / "there").rglob(".*"))
    assert workers(tmp_path) == []


def test_what_fits_on_no_node_says_so(cluster: Cluster, tmp_path: Path) -> None:
    """A file that looks as if it were enormous."""
    source = tmp_path / "huge.keras"
    with source.open("wb") as stream:
        stream.write(b"PK")
        stream.truncate(2**40)
    words = [source.name, "--source-kind", "keras_archive", "--weights", "random"]
    batch = BatchRun(tmp_path, [*words, "--executor", "ray", "--ray-address", cluster.address])
    assert batch.status() == 8, batch.text
    assert "fits on no node of the cluster: it needs about" in batch.text


def test_ctrl_c_once_finishes_what_runs(cluster: Cluster, tmp_path: Path) -> None:
    sources = [weights_file(tmp_path / f"m{number}.safetensors", MANY_TENSORS) for number in range(8)]
    batch = BatchRun(tmp_path, [*sources, "--executor", "ray", "--ray-address", cluster.address])
    with held(partial(workers, tmp_path), 2):
        batch.wait_for(": started", 2)
        batch.interrupt()
        batch.wait_for("Ctrl-C again stops now")
    assert batch.status() == 130, batch.text
    assert 2 <= len(digests(tmp_path / "outputs")) < 8
    assert not list((tmp_path / "outputs").rglob(".*"))
    assert workers(tmp_path) == []


def test_ctrl_c_twice_stops_at_once(cluster: Cluster, tmp_path: Path) -> None:
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 4 * MANY_TENSORS) for number in range(3)]
    batch = BatchRun(tmp_path, [*sources, "--executor", "ray", "--ray-address", cluster.address])
    with held(partial(workers, tmp_path), 2):
        batch.wait_for(": started", 2)
        batch.interrupt()
        batch.wait_for("Ctrl-C again stops now")
        batch.interrupt()
        assert batch.status() == 130, batch.text
    assert not list(tmp_path.glob("outputs/*/manifest.json"))
    assert not list((tmp_path / "outputs").rglob(".*"))
    assert workers(tmp_path) == []


def test_the_batch_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Its jobs end, and the next one clears up."""
    sources = [weights_file(tmp_path / f"m{number}.safetensors", MANY_TENSORS) for number in range(2)]
    words = [*sources, "--executor", "ray", "--ray-address", cluster.address]
    batch = BatchRun(tmp_path, words)
    with held(partial(workers, tmp_path), 2):
        batch.wait_for(": started", 2)
        batch.process.kill()
        batch.process.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while workers(tmp_path):
        assert time.monotonic() < deadline, "a job goes on without its batch"
        time.sleep(0.1)
    again = BatchRun(tmp_path, words)
    assert again.status() == 0, again.text
    assert len(digests(tmp_path / "outputs")) == 2
    assert not list((tmp_path / "outputs").rglob(".*"))


def test_a_local_ray_is_started_where_there_is_no_cluster(tmp_path: Path) -> None:
    source = weights_file(tmp_path / "m.safetensors", 3)
    batch = BatchRun(tmp_path, [source, "--executor", "ray", "--jobs", "1"])
    assert batch.status() == 0, batch.text
    assert "one was started for this batch, on this machine alone" in batch.text
    assert list(digests(tmp_path / "outputs")) == ["m"]


def stored(s3: S3) -> dict[str, dict[str, str]]:
    """As `digests`, of what is in the store."""
    found: dict[str, dict[str, str]] = {}
    for key in s3.names("runs/"):
        _, model, name = key.split("/")
        found.setdefault(model, {})[name] = hashlib.sha256(s3.content(key)).hexdigest()
    for model, names in found.items():
        del names["manifest.json"]
        receipt = json.loads(s3.content(f"runs/{model}/manifest.json"))
        assert names == {record["name"]: record["sha256"] for record in receipt["files"]}
    return found


def test_an_object_store_is_shared_by_all_nodes(cluster: Cluster, s3: S3, tmp_path: Path) -> None:
    """A source is there, too, which is fetched by the node that has its job."""
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 3 + number) for number in range(3)]
    s3.put("models/m2.safetensors", (tmp_path / sources[2]).read_bytes())
    sources[2] = f"s3://{BUCKET}/models/m2.safetensors"
    words = [*sources, "-o", s3.address, "--executor", "ray", "--ray-address", cluster.address]
    there = BatchRun(tmp_path, words)
    assert there.status() == 0, there.text
    here = BatchRun(tmp_path, [*sources, "-o", "here"])
    assert here.status() == 0, here.text
    assert stored(s3) == digests(tmp_path / "here")
    again = BatchRun(tmp_path, words)
    assert again.status() == 0, again.text
    assert "3 up to date" in again.text
    assert "started" not in again.text


def test_a_node_is_lost_while_it_uploads(cluster: Cluster, s3: S3, tmp_path: Path) -> None:
    """Both are at it when one goes; what it held in the store does not hold up the attempt that follows."""
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 3 + number) for number in range(2)]
    arrived = {f"/{BUCKET}/runs/m{number}/layers.parquet": threading.Event() for number in range(2)}
    go_on = threading.Event()

    def hold_up(asked: Asked) -> str | None:
        """The first upload of each, and nothing of it arrives."""
        if asked.what != "PUT layers.parquet" or go_on.is_set():
            return None
        arrived[asked.path].set()
        go_on.wait(PATIENCE_SECONDS)
        return "503 Service Unavailable"

    s3.fault = hold_up
    there = BatchRun(tmp_path, [*sources, "-o", s3.address, "--executor", "ray", "--ray-address", cluster.address])
    assert all(event.wait(PATIENCE_SECONDS) for event in arrived.values()), there.text
    cluster.lose_the_second_node()
    go_on.set()
    try:
        assert there.status() == 0, there.text
    finally:
        cluster.add_it_again()
    assert "started, attempt 2" in there.text
    here = BatchRun(tmp_path, [*sources, "-o", "here"])
    assert here.status() == 0, here.text
    assert stored(s3) == digests(tmp_path / "here")
    assert s3.unfinished_uploads() == 0
