"""A transformer far larger than the memory that converting it takes: peak memory, wall time, and a run of the result.

python benchmarks/large_model.py --weights-gb 12 --folder /data/large --output results.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare import ENVIRONMENT, IMPORT, Run, log, machine, measure, table

from exporter.memory import conversion_bound_bytes, format_bytes, parse_bytes

LIMIT_BYTES, LEAST_COPY_RATE = int(2.5e9), 0.7
# The archive and the ONNX file, or the archive and its copy; while it is made, the archive and its weights file.
DISK_FACTOR = 2.1
TOKENS = 16
ARCHIVE, SHARDS = "archive", "shards"
TITLES = ("source", "weights", "largest tensor", "tensors", "build", "cp + fsync", "export", "growth ÷ cp")
MEMORY_TITLES = ("source", "limit", "our bound", "build", "export", "within the limit")
RUN_TITLES = ("source", "open", "one step", "own memory", "mapped", "difference to Keras")

# Arguments: kind, shape as JSON, bytes of a shard. The current folder gets the model.
BUILD = """
import json, sys
from pathlib import Path
import transformer
kind, shape, shard_bytes = sys.argv[1:]
model = transformer.hollow_transformer(transformer.Shape(**json.loads(shape)))
if kind == "archive":
    transformer.write_archive(Path(), model)
else:
    transformer.write_shards(Path(), model, int(shard_bytes))
"""
KERAS = """
import json, sys
import numpy, transformer
model = transformer.hollow_transformer(transformer.Shape(**json.loads(sys.argv[1])))
numpy.save("keras.npy", transformer.run_layer_by_layer(model, numpy.load("ids.npy")))
"""
# Weights stay where they are mapped: packing them into another order for faster products would copy them all.
RUNTIME = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.disable_prepacking", "1")
start = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
opened = time.perf_counter()
(logits,) = session.run(None, {"ids": numpy.load("ids.npy")})
stepped = time.perf_counter()
numpy.save("runtime.npy", logits)
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
mapped, own = (int(lines[key].split()[0]) * 1024 for key in ("RssFile", "RssAnon"))
json.dump([opened - start, stepped - opened, own, mapped], open("runtime.json", "w"))
"""


@dataclass(frozen=True)
class Model:
    """What `transformer.Shape` takes, and what follows: bytes of all weights and of the largest, their number."""

    shape: dict[str, int]
    weight_bytes: int
    largest_bytes: int
    count: int


@dataclass(frozen=True)
class Step:
    """One run in ONNX Runtime. `own_bytes` are anonymous memory, `mapped_bytes` pages of files, the weights among them.

    `difference` is relative to the largest of Keras's logits.
    """

    open_seconds: float
    step_seconds: float
    own_bytes: int
    mapped_bytes: int
    difference: float


@dataclass(frozen=True)
class Result:
    kind: str
    model: Model
    build: Run
    copy_seconds: float
    export: Run
    step: Step | None


def planned(weight_bytes: float, width: int, vocabulary: int) -> Model:
    """Asks Keras in a process of its own, so that this one stays small."""
    code = (
        "import json, sys; import transformer as t;"
        "s = t.shape_of(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]));"
        "v = [one.nbytes for one in t.variables_of(t.hollow_transformer(s))];"
        "print(json.dumps([vars(s), sum(v), max(v), len(v)]))"
    )
    words = [sys.executable, "-c", code, str(weight_bytes), str(width), str(vocabulary)]
    found = subprocess.run(words, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout
    return Model(*json.loads(found.splitlines()[-1]))


def finished(run: Run, what: str) -> Run:
    if run.failure:
        raise SystemExit(f"{what}: {run.failure}")
    return run


def copied(paths: Sequence[Path], folder: Path) -> float:
    """Seconds for `cp` and `fsync` of the files, none of which is in the page cache; the copies go."""
    forget(paths)
    (target := folder / "copy").mkdir()
    start = time.perf_counter()
    subprocess.run(["cp", *map(str, paths), str(target)], check=True)
    for path in target.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def forget(paths: Sequence[Path]) -> None:
    """Take files out of the page cache, where the system has a call for that."""
    if hasattr(os, "posix_fadvise"):
        for path in paths:
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def exported(kind: str, folder: Path) -> Run:
    source = ["transformer.keras"] if kind == ARCHIVE else ["architecture.json", "--weights", "model.weights.json"]
    flags = ["--to", "onnx", "--no-verify", "--force", "-o", "outputs"]
    return finished(measure([sys.executable, "-m", "exporter", *source, *flags], folder), f"export of {kind}")


def expected_logits(model: Model) -> np.ndarray:
    """What Keras's layers give for the token ids of `token_ids`, one layer after the other."""
    log(f"Keras, layer by layer: {format_bytes(model.weight_bytes)}")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "ids.npy"), token_ids(model))
        finished(measure([sys.executable, "-c", KERAS, json.dumps(model.shape)], Path(folder)), "Keras")
        return np.load(Path(folder, "keras.npy"))


def token_ids(model: Model) -> np.ndarray:
    return np.random.default_rng(0).integers(0, model.shape["vocabulary"], (1, TOKENS), np.int32)


def stepped(model: Model, folder: Path, expected: np.ndarray) -> Step:
    """One step on a short sequence in ONNX Runtime."""
    np.save(folder / "ids.npy", token_ids(model))
    (path,) = folder.glob("outputs/*/model.onnx")
    finished(measure([sys.executable, "-c", RUNTIME, str(path)], folder), "ONNX Runtime")
    difference = float(np.abs(expected - np.load(folder / "runtime.npy")).max() / np.abs(expected).max())
    return Step(*json.loads((folder / "runtime.json").read_text()), difference)


def run(kind: str, model: Model, folder: Path, shard_bytes: int, expected: np.ndarray | None) -> Result:
    """Build, copy, export, and run where there are logits to compare with; nothing of it is left on the disk."""
    needed, free = int(DISK_FACTOR * model.weight_bytes), shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(f"{folder}: {format_bytes(needed)} are needed, {format_bytes(free)} are free")
    work = folder / f"large-{kind}"
    work.mkdir()
    try:
        log(f"{kind}: {format_bytes(model.weight_bytes)} in {model.count} tensors are written")
        build_words = [sys.executable, "-c", BUILD, kind, json.dumps(model.shape), str(shard_bytes)]
        built = finished(measure(build_words, work), f"build of {kind}")
        paths = sorted(path for path in work.iterdir() if path.suffix in (".keras", ".h5", ".json"))
        copy_seconds = copied(paths, work)
        forget(paths)
        log(f"{kind}: export")
        export = exported(kind, work)
        log(f"{kind}: {export.seconds:.1f} s, peak {format_bytes(export.peak_bytes)}")
        step = None if expected is None else stepped(model, work, expected)
        shutil.rmtree(work / "outputs")
        # Before and after, because the rate of a shared disk changes within minutes.
        copy_seconds = (copy_seconds + copied(paths, work)) / 2
        return Result(kind, model, built, copy_seconds, export, step)
    finally:
        shutil.rmtree(work)


def report(small: Result, results: Sequence[Result], import_bytes: int) -> Iterator[str]:
    yield from machine()
    yield from table(TITLES, [size_row(small, small), *(size_row(result, small) for result in results)])
    yield ""
    yield "Growth: the bytes that a model has more than the first one, by the seconds that its export takes longer;"
    yield "cp + fsync: the same files, none of them cached, the mean of before and after the export."
    yield f"The aim is a ratio of at least {LEAST_COPY_RATE}."
    yield ""
    yield from table(MEMORY_TITLES, [memory_row(result, import_bytes) for result in results])
    yield ""
    yield from table(RUN_TITLES, [step_row(result.kind, result.step) for result in results if result.step])


def size_row(result: Result, small: Result) -> tuple[str, ...]:
    copy_rate = result.model.weight_bytes / result.copy_seconds
    growth = "–"
    if result is not small:
        more = result.model.weight_bytes - small.model.weight_bytes
        growth = f"{more / (result.export.seconds - small.export.seconds) / copy_rate:.2f}"
    seconds = (result.build.seconds, result.copy_seconds, result.export.seconds)
    sizes = map(format_bytes, (result.model.weight_bytes, result.model.largest_bytes))
    return (result.kind, *sizes, str(result.model.count), *(f"{value:.1f} s" for value in seconds), growth)


def memory_row(result: Result, import_bytes: int) -> tuple[str, ...]:
    bound = conversion_bound_bytes(import_bytes, result.model.largest_bytes)
    peak = max(result.build.peak_bytes, result.export.peak_bytes)
    sizes = (LIMIT_BYTES, bound, result.build.peak_bytes, result.export.peak_bytes)
    return (result.kind, *map(format_bytes, sizes), "yes" if peak <= LIMIT_BYTES else "NO")


def step_row(kind: str, step: Step) -> tuple[str, ...]:
    seconds = (f"{value:.1f} s" for value in (step.open_seconds, step.step_seconds))
    return (kind, *seconds, *map(format_bytes, (step.own_bytes, step.mapped_bytes)), f"{step.difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights-gb", type=float, default=12, help="float32 weights, in 10⁹ bytes")
    parser.add_argument(
        "--width", type=int, default=4096, help="of the residual stream; a block has 12 × width² weights"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=32_000, help="rows of the embedding and units of the last layer"
    )
    parser.add_argument("--shard-size", type=parse_bytes, default="2GB", help="of a shard at most, such as 2GB")
    parser.add_argument("--kinds", default=f"{ARCHIVE},{SHARDS}", help="what to convert, one after the other")
    parser.add_argument("--folder", type=Path, required=True, help="with room for 2.1 times the weights")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report here, too")
    options = parser.parse_args()
    # For the processes that are started in other folders: this one, and the checkout.
    here = Path(__file__).resolve().parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    kinds = options.kinds.split(",")
    import_bytes = measure([sys.executable, "-c", IMPORT], folder).peak_bytes
    one_block, model = (planned(size, options.width, options.vocabulary) for size in (0, options.weights_gb * 1e9))
    expected = expected_logits(model)
    small = run(kinds[0], one_block, folder, options.shard_size, None)
    results = [run(kind, model, folder, options.shard_size, expected) for kind in kinds]
    text = "\n".join(report(small, results, import_bytes))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
