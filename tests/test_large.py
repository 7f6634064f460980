"""Models larger than the memory that converting them takes, and a tensor of more than 2 GB.

The limit is enforced from outside: a parent adds up the resident memory of the whole tree of processes every few
milliseconds and kills the tree at the limit. A cgroup would need privileges, and limits on address space (`RLIMIT_AS`,
`RLIMIT_DATA`) count what TensorFlow only reserves.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from exporting import manifest
from large_model import ARCHIVE, BUILD, RUNTIME, SHARDS, Model, planned
from test_memory import tensorflow_rss_bytes

from exporter.child_process import child_environment
from exporter.memory import conversion_bound_bytes, format_bytes

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
LOOK_SECONDS, LOOKS_PER_CENSUS = 0.004, 25
SOURCES = {ARCHIVE: ["transformer.keras"], SHARDS: ["architecture.json", "--weights", "model.weights.json"]}
IDS = np.arange(7, 7 + 12, dtype=np.int32)[np.newaxis]
# Loads the whole model, as Keras does.
LOAD = "import keras; model = keras.models.load_model('transformer.keras')"
REFERENCE = LOAD + "; import numpy; numpy.save('keras.npy', model(numpy.load('ids.npy')))"


@dataclass(frozen=True)
class Ended:
    """A tree of processes that has ended. `peak_bytes` is what the watcher saw of it."""

    status: int
    peak_bytes: int
    was_killed: bool
    errors: str


def resident_bytes(tree: list[psutil.Process]) -> int:
    total = 0
    for process in tree:
        with suppress(psutil.Error):  # ended in between
            total += process.memory_info().rss
    return total


def has_started(process: psutil.Process) -> bool:
    """Whether it runs a program of its own; until then `vfork` lends it its parent's memory, which counts once."""
    parent = process.parent()
    return parent is None or process.cmdline() != parent.cmdline()


def run_limited(words: list[str], folder: Path, limit_bytes: int) -> Ended:
    """Run Python with these arguments; all of it is killed as soon as its resident memory is above the limit."""
    errors = folder / "errors.txt"
    with open(errors, "wb") as stream:
        child = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment(), stdout=stream, stderr=subprocess.STDOUT
        )
    root, tree, peak_bytes, was_killed = psutil.Process(child.pid), [], 0, False
    for look in itertools.count():
        if child.poll() is not None:
            break
        if look % LOOKS_PER_CENSUS == 0:  # every process of the machine is looked at for that
            with suppress(psutil.Error):
                tree = [root, *(one for one in root.children(recursive=True) if has_started(one))]
        peak_bytes = max(peak_bytes, resident_bytes(tree))
        if peak_bytes > limit_bytes and not was_killed:
            was_killed = True
            for process in tree:
                with suppress(psutil.Error):
                    process.kill()
        time.sleep(LOOK_SECONDS)
    return Ended(child.returncode, peak_bytes, was_killed, errors.read_text(errors="replace")[-2000:])


def run_unlimited(words: list[str], folder: Path) -> None:
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(), check=True)


def environment() -> dict[str, str]:
    settings = child_environment()
    return settings | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY / "benchmarks"), settings["PYTHONPATH"]])}


def export_words(*source: str) -> list[str]:
    return ["-m", "exporter", *source, "--to", "onnx", "--no-verify", "--force", "-o", "outputs"]


def check_limited(ended: Ended, limit_bytes: int, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        texts = f"peak {format_bytes(ended.peak_bytes)}, limit {format_bytes(limit_bytes)}"
        sys.stderr.write(f"\n{what}: {texts}\n")
    assert not ended.was_killed, f"{what} went above {limit_bytes}: {ended.peak_bytes}"
    assert ended.status == 0, ended.errors


@dataclass(frozen=True)
class Large:
    """A folder with the same 1.5 GB of weights in both forms, and what Keras makes of them for `IDS`."""

    folder: Path
    model: Model
    limit_bytes: int
    expected: np.ndarray


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        model = planned(1.5e9, width=2048, vocabulary=8192)
    limit_bytes = conversion_bound_bytes(tensorflow_rss_bytes(), model.largest_bytes)
    for kind in SOURCES:
        words = ["-c", BUILD, kind, json.dumps(model.shape), str(400 * 10**6)]
        ended = run_limited(words, folder, limit_bytes)
        assert (ended.status, ended.was_killed) == (0, False), (ended.peak_bytes, limit_bytes, ended.errors)
    np.save(folder / "ids.npy", IDS)
    run_unlimited(["-c", REFERENCE], folder)
    yield Large(folder, model, limit_bytes, np.load(folder / "keras.npy"))
    shutil.rmtree(folder)  # pytest would keep it for three runs


@pytest.mark.parametrize("kind", SOURCES)
def test_a_large_model_converts_and_runs(kind: str, large: Large, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run_limited(export_words(*SOURCES[kind]), large.folder, large.limit_bytes)
    check_limited(ended, large.limit_bytes, f"export of {format_bytes(large.model.weight_bytes)}, {kind}", capsys)
    folder = large.folder / "outputs" / Path(SOURCES[kind][0]).stem
    receipt = manifest(folder)
    assert receipt["weight_bytes"] == large.model.weight_bytes > 1.5e9
    # The worker's own high-water mark: nothing happened between two looks either.
    assert receipt["memory"]["peak_rss_bytes"] <= large.limit_bytes
    run_unlimited(["-c", RUNTIME, str(folder / "model.onnx")], large.folder)
    found = np.load(large.folder / "runtime.npy")
    np.testing.assert_allclose(found, large.expected, rtol=0, atol=1e-4 * np.abs(large.expected).max())
    assert found.std() > 0.1
    _, _, own_bytes, mapped_bytes = json.loads((large.folder / "runtime.json").read_text())
    assert own_bytes < large.model.weight_bytes / 4 < mapped_bytes
    shutil.rmtree(folder)


def test_the_limit_ends_what_loads_the_whole_model(large: Large) -> None:
    ended = run_limited(["-c", LOAD], large.folder, large.limit_bytes)
    assert ended.was_killed
    assert ended.status < 0


# An embedding of 2.16 GB, of which only the first and the last rows are ever written: a file with a hole.
WIDTH, ROWS, WRITTEN = 4096, 132_000, 100
MAKE_TABLE = """
import sys
import h5py, keras, numpy as np
from keras import layers
width, rows, written = map(int, sys.argv[1:])
with keras.StatelessScope(initialize_variables=False):
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(rows, width, name="table")(ids)
    model = keras.Model(ids, layers.Dense(3, name="head")(table), name="lookup")
open("lookup.json", "w").write(model.to_json())
generator = np.random.default_rng(0)
ends, kernel = (generator.standard_normal(shape, np.float32) for shape in ((2 * written, width), (width, 3)))
np.savez("values.npz", ends=ends, kernel=kernel)
with h5py.File("lookup.weights.h5", "w") as file:
    space, properties = h5py.h5s.create_simple((rows, width)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    group = file.create_group("layers/embedding/vars")
    h5py.h5d.create(group.id, b"0", h5py.h5t.NATIVE_FLOAT, space, properties)
    group["0"][:written], group["0"][-written:] = ends[:written], ends[written:]
    dense = file.create_group("layers/dense/vars")
    dense["0"], dense["1"] = kernel, np.zeros(3, np.float32)
"""


def test_a_tensor_of_more_than_2_gb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is copied in pieces: the limit does not know its size. The lookup is compared with NumPy."""
    assert ROWS * WIDTH * 4 > 2**31
    limit_bytes = conversion_bound_bytes(tensorflow_rss_bytes(), 0)
    ended = run_limited(["-c", MAKE_TABLE, str(WIDTH), str(ROWS), str(WRITTEN)], tmp_path, limit_bytes)
    assert (ended.status, ended.was_killed) == (0, False), ended.errors
    ended = run_limited(export_words("lookup.json", "--weights", "lookup.weights.h5"), tmp_path, limit_bytes)
    check_limited(ended, limit_bytes, "export of a tensor of 2.16 GB", capsys)
    values = np.load(tmp_path / "values.npz")
    ids = np.r_[:WRITTEN, ROWS // 2, ROWS - WRITTEN : ROWS].astype(np.int32)
    np.save(tmp_path / "ids.npy", ids[np.newaxis])
    run_unlimited(["-c", RUNTIME, "outputs/lookup/model.onnx"], tmp_path)
    rows = np.insert(values["ends"], WRITTEN, 0, axis=0)
    np.testing.assert_allclose(np.load(tmp_path / "runtime.npy")[0], rows @ values["kernel"], rtol=1e-4, atol=1e-3)
    shutil.rmtree(tmp_path / "outputs")
