"""The bound: importing TensorFlow + 2 × the largest tensor + 200 MB, whatever the model's size."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from exporting import manifest

from exporter import memory, plan, supervisor
from exporter.child_process import child_environment
from exporter.records import Job, Outcome

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_formula() -> None:
    assert memory.conversion_bound_bytes(600_000_000, 0) == 800_000_000
    assert memory.conversion_bound_bytes(600_000_000, 100) == 800_000_200


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("4GiB", 2**32), ("500MB", 500 * 10**6), ("1.5 k", 1500), ("0", 0), ("7b", 7), ("2 TiB", 2**41), ("1Ki", 1024)],
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert memory.parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 PB", "4 GiBs", "1e9", "1,5G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        memory.parse_bytes(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (178 * 10**6, "178 MB")],
)
def test_sizes_are_written(nbytes: int, text: str) -> None:
    assert memory.format_bytes(nbytes) == text


def test_the_peak_is_the_process_s_own() -> None:
    """Not that of the parent which forked it, here a pytest with TensorFlow in it, perhaps."""
    code = (
        "from exporter import memory; b = b'x' * 10**8; now = memory.rss_bytes(); print(memory.peak_rss_bytes(), now)"
    )
    ballast = b"x" * (300 * 10**6)
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=REPOSITORY)
    peak, now = map(int, out.split())
    assert 10**8 < peak < 2 * 10**8 < len(ballast)
    assert 10**7 < now <= peak + 2**20


def test_no_more_is_free_than_the_machine_has() -> None:
    assert 0 < memory.available_bytes() < 2**50


def exported(source: str, output: Path, **options: object) -> tuple[Job, Outcome]:
    """By the real worker, watched from outside."""
    settings = {"formats": ("onnx", "parquet"), "output": str(output), "weights": "random", "verify": False}
    (job,) = plan.plan([source], plan.ExportOptions(**settings | options))  # type: ignore[arg-type]
    assert isinstance(job, Job), job
    outcome = supervisor.run(job, watch=lambda event: None)
    assert outcome.error is None, outcome.error
    return job, outcome


@functools.cache
def tensorflow_rss_bytes() -> int:
    """What `import tensorflow` alone takes, in a process that does nothing else."""
    code = "import tensorflow; from exporter import memory; print(memory.peak_rss_bytes())"
    command = [sys.executable, "-c", code]
    return int(subprocess.check_output(command, text=True, cwd=REPOSITORY, env=child_environment()).split()[-1])


def check_bound(job: Job, outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> int:
    """The worker's own peak and that of the whole tree, seen from outside. Returns the bytes of all weights."""
    receipt = manifest(Path(job.output_path))
    used = receipt["memory"]
    bound = memory.conversion_bound_bytes(tensorflow_rss_bytes(), used["largest_tensor_bytes"])
    peaks = {
        "worker": outcome.peak_rss_bytes,
        "tree": outcome.tree_peak_rss_bytes,
        "bound": bound,
        "import tensorflow": tensorflow_rss_bytes(),
        "largest tensor": used["largest_tensor_bytes"],
        "weights": receipt["weight_bytes"],
    }
    with capsys.disabled():
        texts = ", ".join(f"{name} {memory.format_bytes(nbytes)}" for name, nbytes in peaks.items())
        sys.stderr.write(f"\n{job.name}: {texts}, {outcome.seconds:.0f} s\n")
    # The receipt's own bound starts from the worker's imports: Keras and what conversion needs come to TensorFlow, what
    # TensorFlow has no need of (`exporter.startup`) is left out.
    assert abs(used["bound_bytes"] - bound) <= 10**8
    assert max(outcome.peak_rss_bytes, outcome.tree_peak_rss_bytes) <= bound
    return int(receipt["weight_bytes"])


@pytest.mark.slow
def test_two_sizes_of_one_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = check_bound(*exported("convnext_tiny", tmp_path), capsys)
    large = check_bound(*exported("convnext_xlarge", tmp_path), capsys)
    assert small < 150 * 10**6
    assert large > 10**9


# Written piece by piece: making the file needs less memory than reading it may.
MAKE_LARGE = """
    import json, sys, zipfile
    import h5py, keras, numpy as np
    from keras import layers
    path, blocks, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with keras.StatelessScope(initialize_variables=False):
        x = y = keras.Input((width,), name="x")
        for index in range(blocks):
            y = layers.Add(name=f"add{index}")([y, layers.Dense(width, "relu", name=f"block{index}")(y)])
        config = json.dumps(keras.saving.serialize_keras_object(keras.Model(x, y, name="large")))
    generator = np.random.default_rng(0)
    with h5py.File(path + ".weights", "w") as file:
        for index in range(blocks):
            group = file.create_group("layers/dense" + (f"_{index}" if index else "") + "/vars")
            group["0"] = generator.standard_normal((width, width), np.float32) / width
            group["1"] = np.zeros(width, np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("config.json", config)
        archive.write(path + ".weights", "model.weights.h5")
"""


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.15 GB in 18 kernels of 64 MB each."""
    path = tmp_path_factory.mktemp("large") / "large.keras"
    subprocess.run([sys.executable, "-c", textwrap.dedent(MAKE_LARGE), str(path), "18", "4000"], check=True)
    Path(f"{path}.weights").unlink()
    return path


@pytest.mark.slow
def test_a_large_archive(large_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_bound(*exported(str(large_archive), tmp_path, weights="auto"), capsys) > 1.1 * 10**9


@pytest.mark.slow
def test_a_large_archive_that_is_compressed(
    large_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed.keras"
    with zipfile.ZipFile(large_archive) as source, zipfile.ZipFile(packed, "w") as target:
        for info in source.infolist():
            method = zipfile.ZIP_DEFLATED if info.filename.endswith(".h5") else zipfile.ZIP_STORED
            with source.open(info) as reader:
                entry = zipfile.ZipInfo(info.filename)
                entry.compress_type, entry._compresslevel = method, 1  # type: ignore[attr-defined]
                with target.open(entry, "w", force_zip64=True) as writer:
                    while piece := reader.read(2**20):
                        writer.write(piece)
    check_bound(*exported(str(packed), tmp_path, weights="auto"), capsys)


@pytest.mark.slow
def test_max_memory_ends_what_goes_above_it(large_archive: Path, tmp_path: Path) -> None:
    (job,) = plan.plan(
        [str(large_archive)], plan.ExportOptions(output=str(tmp_path), max_memory="300MB", formats=("onnx",))
    )
    assert isinstance(job, Job)
    outcome = supervisor.run(job, watch=lambda event: None)
    assert outcome.error is not None
    assert "went above --max-memory 300 MB" in outcome.error["what"]
    assert not Path(job.output_path).exists()
