"""The same models through this package, tf2onnx and Keras: wall time and peak memory of whole processes.

python benchmarks/compare.py --models ResNet101,MobileNetV3Small,ConvNeXtTiny --repeat 3 --output results.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import psutil

from exporter.memory import conversion_bound_bytes, format_bytes

POLL_SECONDS = 0.02
PACKAGES = ("export-model", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}

# Random weights with a fixed seed, saved for both competitors; prints the sizes of the weights, in bytes.
PREPARE = """
import json, math, sys
import keras, numpy
name, folder = sys.argv[1:]
keras.utils.set_random_seed(0)
model = getattr(keras.applications, name)(weights=None)
model.save(f"{folder}/model.keras")
model.export(f"{folder}/saved_model", verbose=False)
print(json.dumps([math.prod(weight.shape) * numpy.dtype(weight.dtype).itemsize for weight in model.weights]))
"""
# Keras refuses to export a model to ONNX that was loaded but never called.
KERAS = """
import sys
import keras, numpy
model = keras.models.load_model(sys.argv[1])
model(numpy.zeros([size or 224 for size in (1, *model.input_shape[1:])], "float32"))
model.export(sys.argv[2], format="onnx", verbose=False)
"""


@dataclass(frozen=True)
class Run:
    """A process from start to end. `peak_bytes` is that of its whole tree; `failure` is empty when all went well."""

    seconds: float
    peak_bytes: int
    failure: str = ""


@dataclass(frozen=True)
class Prepared:
    """A model saved in both forms that the competitors read."""

    name: str
    folder: Path
    tensor_bytes: tuple[int, ...]


Command = Callable[[Prepared, Path], list[str]]


def ours(model: Prepared, output: Path) -> list[str]:
    flags = ["--to", "onnx,parquet", "--weights", "random", "--no-verify", "--force", "-o", str(output)]
    return [sys.executable, "-m", "exporter", model.name, *flags]


def tf2onnx(model: Prepared, output: Path) -> list[str]:
    flags = [
        "--saved-model",
        str(model.folder / "saved_model"),
        "--opset",
        "18",
        "--output",
        str(output / "model.onnx"),
    ]
    return [sys.executable, "-m", "tf2onnx.convert", *flags]


def keras_export(model: Prepared, output: Path) -> list[str]:
    return [sys.executable, "-c", KERAS, str(model.folder / "model.keras"), str(output / "model.onnx")]


OURS, IMPORT = "export-model", "import tensorflow"
TOOLS: dict[str, Command] = {OURS: ours, "tf2onnx.convert": tf2onnx, "keras export": keras_export}
ROW_TITLES = ("model", "tool", "result", "wall", "peak memory", "wall, ours ÷ theirs", "memory, ours ÷ theirs")
BOUND_TITLES = ("model", "weights", "largest tensor", "bound", "our peak", "holds")


def tree_rss_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and all below it, summed; pages that they share count in each."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:  # ended in between
        pass
    return total


def measure(command: Sequence[str], folder: Path, limit_bytes: int | None = None) -> Run:
    """Run to the end, watching the tree every 20 ms; `wait4` adds the peak that a process reached between two looks.

    A tree that goes above `limit_bytes` is ended, before the system ends something else.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        start, peak_bytes, too_large = time.perf_counter(), 0, ""
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors
        )
        watched = psutil.Process(process.pid)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak_bytes = max(peak_bytes, tree_rss_bytes(watched))
            if limit_bytes and peak_bytes > limit_bytes and not too_large:
                too_large = f"ended at {format_bytes(peak_bytes)}, above the limit of {format_bytes(limit_bytes)}"
                end_tree(watched)
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - start
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped: Popen must not wait for it
        own_peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        errors.seek(0)
        failure = too_large or failure_of(process.returncode, errors.read())
        return Run(seconds, max(peak_bytes, own_peak_bytes), failure)


def end_tree(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (*process.children(recursive=True), process):
            member.kill()


def failure_of(status: int, errors: str) -> str:
    if status < 0:
        return f"killed by signal {-status}"
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(" ")]  # no indented hints
    return (lines[-1] if lines else f"exit status {status}") if status else ""


def prepare(name: str, folder: Path) -> Prepared:
    """Save the model in a process of its own, which is not measured."""
    process = subprocess.run(
        [sys.executable, "-c", PREPARE, name, str(folder)],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return Prepared(name, folder, tuple(json.loads(process.stdout.splitlines()[-1])))


def convert(command: Command, model: Prepared, limit_bytes: int | None = None) -> Run:
    """One conversion into a folder of its own; one that leaves no ONNX file has failed, whatever its status."""
    with tempfile.TemporaryDirectory() as output:
        run = measure(command(model, Path(output)), model.folder, limit_bytes)
        if not run.failure and not any(Path(output).rglob("*.onnx")):
            return Run(run.seconds, run.peak_bytes, "no ONNX file was written")
        return run


def summary(runs: Sequence[Run]) -> Run:
    """Medians; if any run failed, of those that failed, for it is a tool that cannot be relied on."""
    counted = [run for run in runs if run.failure] or runs
    failure = counted[0].failure
    if failure and len(counted) < len(runs):
        failure += f" ({len(counted)} of {len(runs)} runs)"
    return Run(median(run.seconds for run in counted), int(median(run.peak_bytes for run in counted)), failure)


def run_all(model: Prepared, repeat: int) -> dict[str, Run]:
    """Each tool and the import of TensorFlow; in turn, so that a slow minute of the machine meets all."""
    runs: dict[str, list[Run]] = {tool: [] for tool in (*TOOLS, IMPORT)}
    for number in range(1, repeat + 1):
        log(f"{model.name}: run {number} of {repeat}")
        runs[IMPORT].append(measure([sys.executable, "-c", IMPORT], model.folder))
        for tool, command in TOOLS.items():
            runs[tool].append(convert(command, model))
    return {tool: summary(of_tool) for tool, of_tool in runs.items()}


def compare(names: Sequence[str], repeat: int) -> Iterator[str]:
    """The report, line by line."""
    yield from machine()
    rows, bounds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (place := Path(folder, name)).mkdir()
            model = prepare(name, place)
            results = run_all(model, repeat)
            rows += [row(model, tool, result, results[OURS]) for tool, result in results.items()]
            bounds.append(bound(model, results[IMPORT], results[OURS]))
    yield from table(ROW_TITLES, rows)
    yield ""
    yield f"The bound on memory: `{IMPORT}` + 2 × largest tensor + 200 MB."
    yield ""
    yield from table(BOUND_TITLES, bounds)


def row(model: Prepared, tool: str, result: Run, our: Run) -> tuple[str, ...]:
    comparable = tool != OURS and not result.failure and not our.failure
    wall, memory = our.seconds / result.seconds, our.peak_bytes / result.peak_bytes
    return (
        model.name,
        tool,
        f"failed: {result.failure}" if result.failure else "works",
        f"{result.seconds:.1f} s",
        format_bytes(result.peak_bytes),
        f"{wall:.2f}" if comparable else "–",
        f"{memory:.2f}" if comparable else "–",
    )


def bound(model: Prepared, imported: Run, our: Run) -> tuple[str, ...]:
    largest = max(model.tensor_bytes)
    limit = conversion_bound_bytes(imported.peak_bytes, largest)
    verdict = "yes" if our.peak_bytes <= limit else "NO"
    sizes = (sum(model.tensor_bytes), largest, limit, our.peak_bytes)
    return (model.name, *map(format_bytes, sizes), "– (failed)" if our.failure else verdict)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (titles, ["---"] * len(titles), *rows):
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def machine() -> Iterator[str]:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    memory = format_bytes(psutil.virtual_memory().total)
    yield f"- Machine: {cpu}, {os.cpu_count()} cores, {memory} of memory, {platform.platform()}"
    yield f"- Python {platform.python_version()}, " + ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    yield ""


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(from the checkout)"


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", default="ResNet101,MobileNetV3Small,ConvNeXtTiny", help="names in keras.applications"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="runs of each, of which the median counts")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report here, too")
    options = parser.parse_args()
    report = "\n".join(compare(options.models.split(","), options.repeat))
    print(report)
    if options.output:
        options.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
