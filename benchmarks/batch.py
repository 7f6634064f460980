"""A zoo as one batch, and the same models through tf2onnx and Keras one after the other; or a thousand tiny models.

python benchmarks/batch.py --models MobileNetV2,ResNet50 --max-memory 8GiB --output results.md
python benchmarks/batch.py --tiny 1000 --output tiny.md
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import psutil
from compare import ENVIRONMENT, TOOLS, Prepared, Run, convert, log, machine, prepare

from exporter.child_process import share_bytes
from exporter.memory import format_bytes, parse_bytes, processors

# Shares of memory are looked up page by page; more often would slow down what is measured.
POLL_SECONDS = 1.0
# One of each family that tf2onnx can convert within 20 GB, and two sizes of the one that everybody knows.
COVERING = (
    "MobileNet,MobileNetV2,MobileNetV3Small,EfficientNetB0,EfficientNetV2B0,DenseNet121,InceptionV3,Xception,NASNetMobile,"
    "ResNet50,ResNet101V2,InceptionResNetV2"
)
COMPETITORS = [name for name in TOOLS if name != "export-model"]
# A tool that fails is ended before the machine has to.
LIMIT_BYTES = 18 * 10**9
TINY = """
import sys
import keras
count, folder = int(sys.argv[1]), sys.argv[2]
for number in range(count):
    width = 4 + number % 29
    keras.utils.set_random_seed(number)
    layers = [keras.Input((width,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    keras.Sequential(layers, name=f"tiny_{number}").save(f"{folder}/tiny{number:04}.keras")
"""


def batch(words: Sequence[str], output: Path) -> Run:
    """One batch from start to end; its memory is the sum of the shares (Pss) of all its processes."""
    command = [sys.executable, "-m", "exporter", "batch", *words, "-o", str(output), "--force", "--quiet"]
    start, peak_bytes = time.perf_counter(), 0
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.returncode is None:
        peak_bytes = max(peak_bytes, held_bytes(watched))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    failure = f"exit status {process.returncode}" if process.returncode else ""
    return Run(time.perf_counter() - start, peak_bytes, failure)


def held_bytes(root: psutil.Process) -> int:
    try:
        return sum(map(share_bytes, (root, *root.children(recursive=True))))
    except psutil.NoSuchProcess:  # ended in between
        return 0


def zoo(names: Sequence[str], max_memory: str) -> Iterator[str]:
    """The report, line by line."""
    yield from machine()
    theirs: dict[str, dict[str, Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            theirs[name] = competitors(name, Path(folder))
        output = Path(folder, "batch")
        log("the batch, as the others do it")
        words = [*names, "--weights", "random", "--max-memory", max_memory]
        unverified = batch([*words, "--no-verify"], Path(folder, "unverified"))
        log("the batch, each file compared with its source")
        verified = batch(words, output)
        rows = rows_of(output)
    yield "| model | ours in the batch, s | verified | " + " | ".join(f"{tool}, s" for tool in COMPETITORS) + " |"
    yield "| --- | ---: | --- |" + " ---: |" * len(COMPETITORS)
    for name, runs in theirs.items():
        seconds, verdict = rows.get(name.lower(), (float("nan"), "?"))
        cells = [run.failure or f"{run.seconds:.1f}" for run in runs.values()]
        yield f"| {name} | {seconds:.1f} | {verdict} | {' | '.join(cells)} |"
    yield ""
    yield from totals("not verified, as theirs", unverified, theirs, max_memory)
    yield ""
    yield from totals("each file compared with its source", verified, theirs, max_memory)


def competitors(name: str, folder: Path) -> dict[str, Run]:
    place = folder / name
    place.mkdir()
    model: Prepared = prepare(name, place)
    runs = {}
    for tool in COMPETITORS:
        log(f"{name}: {tool}")
        runs[tool] = convert(TOOLS[tool], model, LIMIT_BYTES)
    subprocess.run(["rm", "-r", str(place)], check=True)
    return runs


def totals(kind: str, ours: Run, theirs: dict[str, dict[str, Run]], max_memory: str) -> Iterator[str]:
    """Sums over the models that the competitor finished; ours is the whole batch."""
    yield f"The batch, {kind}: {ours.seconds:.1f} s, {ours.failure or 'all done'}."
    limit = parse_bytes(max_memory)
    verdict = "holds" if ours.peak_bytes <= limit else "does NOT hold"
    yield f"Peak of all its processes together: {format_bytes(ours.peak_bytes)} of {format_bytes(limit)}: {verdict}."
    for tool in COMPETITORS:
        finished = [runs[tool] for runs in theirs.values() if not runs[tool].failure]
        total = sum(run.seconds for run in finished)
        ratio = f"{ours.seconds / total:.3f}" if total else "?"
        yield f"{tool}: {total:.1f} s for {len(finished)} of {len(theirs)} models; the batch of all ÷ that: {ratio}."


def rows_of(output: Path) -> dict[str, tuple[float, str]]:
    """Seconds and verdict of each model, from the table that the batch has left."""
    query = f"SELECT model, seconds, verification FROM '{output}/batch.parquet'"
    return {model: (seconds, verdict) for model, seconds, verdict in duckdb.sql(query).fetchall()}


def tiny(count: int) -> Iterator[str]:
    """What planning, scheduling and receipts take besides the workers' own time."""
    yield from machine()
    yield "| formats | models | jobs | wall, s | workers' own, s | overhead for each model, ms | peak memory |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    with tempfile.TemporaryDirectory() as folder:
        models, jobs = Path(folder, "models"), processors()
        models.mkdir()
        subprocess.run([sys.executable, "-c", TINY, str(count), str(models)], env=os.environ | ENVIRONMENT, check=True)
        for formats in ("parquet", "onnx,parquet"):
            output = Path(folder, formats.replace(",", "-"))
            sources = [str(path) for path in sorted(models.iterdir())]
            run = batch([*sources, "--to", formats, "--no-verify"], output)
            ((own,),) = duckdb.sql(f"SELECT sum(seconds) FROM '{output}/batch.parquet'").fetchall()
            overhead = (run.seconds * jobs - own) / count * 1000
            cells = (formats, count, jobs, f"{run.seconds:.1f}", f"{own:.1f}", f"{overhead:.1f}")
            yield f"| {' | '.join(map(str, cells))} | {format_bytes(run.peak_bytes)} {run.failure} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=COVERING)
    parser.add_argument("--max-memory", default="8GiB")
    parser.add_argument("--tiny", type=int, metavar="COUNT")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    report = tiny(arguments.tiny) if arguments.tiny else zoo(arguments.models.split(","), arguments.max_memory)
    lines = []
    for line in report:
        print(line, flush=True)
        lines.append(line)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
