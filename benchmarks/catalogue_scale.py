"""The catalogue of very large models, and the example questions over many exports.

The questions read the files themselves, and then the cached copies, whose making is measured, too.

python benchmarks/catalogue_scale.py --exports 10000 --output catalogue_scale.md
python benchmarks/catalogue_scale.py --layers 100000 --nodes 1000000
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
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import layer_chain
import onnx_chain
import pyarrow as pa
import pyarrow.parquet as pq
from compare import ENVIRONMENT, log, machine, table

from exporter.files import MANIFEST
from exporter.memory import format_bytes
from exporter.query import background, copying
from exporter.query.places import find
from exporter.query.questions import QUESTIONS
from exporter.schema import SCHEMAS

PROCESSES = 2
WAYS = ("from the files", "with the copy")
# One question in a process of its own, as a user asks it.
ASK = """
import json, sys, time
start = time.perf_counter()
from exporter import memory, open_catalogue
from exporter.query import compaction
from exporter.query import copying
from exporter.query.places import find
from exporter.query.questions import QUESTIONS
place, question = sys.argv[1:]
# Small runs measure the copies, too.
compaction.FEW_FILES = 0
rows = open_catalogue(place).sql(QUESTIONS[question].sql).to_arrow().num_rows
seconds = time.perf_counter() - start
print(json.dumps([seconds, rows, memory.peak_rss_bytes()]))
"""


def make_original(folder: Path, model: str) -> Path:
    """The one real export, with all tables and all their columns."""
    flags = ["--to", "onnx,parquet", "--weights", "random", "--stats", "--no-verify", "--output", str(folder)]
    command = [sys.executable, "-m", "exporter", model, *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return next(folder.glob(f"*/{MANIFEST}")).parent


def make_exports(original: Path, root: Path, numbers: Sequence[int]) -> None:
    """The tables of the original under other models' names, and its manifest, which makes an export a finished one."""
    tables = {name: pq.read_table(original / f"{name}.parquet") for name in SCHEMAS}
    for number in numbers:
        model = f"model_{number:05d}"
        (folder := root / model).mkdir(parents=True)
        for name, rows in tables.items():
            named = rows.set_column(0, rows.schema.field(0), pa.array([model] * rows.num_rows))
            pq.write_table(named, folder / f"{name}.parquet", compression="zstd")
        shutil.copy(original / MANIFEST, folder)


def ask(place: Path, question: str, cache: Path) -> tuple[float, int, int]:
    """Seconds from the imports to the last row, rows, and the peak of memory in bytes. Copies are used, not made."""
    environment = os.environ | ENVIRONMENT | {"XDG_CACHE_HOME": str(cache), background.SWITCH: "1"}
    command = [sys.executable, "-c", ASK, str(place), question]
    answer = subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds, rows, peak_bytes = json.loads(answer.stdout)
    return seconds, rows, peak_bytes


def rows(place: Path, cache: Path) -> Iterator[tuple[str, ...]]:
    """Each question over the files, then the copies, then each question over those."""
    direct = {question: ask(place, question, cache / "none") for question in QUESTIONS}
    for name in SCHEMAS:
        log(f"copy of {name}")
        yield f"(making the copy of {name})", "", "", f"{make_copy(place, name, cache):.2f} s", ""
    for question, before in direct.items():
        after = ask(place, question, cache)
        if before[1] != after[1]:
            raise SystemExit(f"{question}: {before[1]} rows from the files, {after[1]} from the copy")
        peak = format_bytes(max(before[2], after[2]))
        yield question, str(before[1]), f"{before[0]:.2f} s", f"{after[0]:.2f} s", peak


def make_copy(place: Path, name: str, cache: Path) -> float:
    """Seconds that a query does not wait for."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    started = time.perf_counter()
    copying.make(name, find([str(place)], [name]).local[name])
    return time.perf_counter() - started


def large_models(layers: int, nodes: int, work: Path) -> Iterator[tuple[str, ...]]:
    """Whole exports of a `.keras` archive and of an ONNX file, and of ones of a tenth of their size."""
    for kind, module, largest in ((".keras", layer_chain, layers), (".onnx", onnx_chain, nodes)):
        for count in (largest // 10, largest):
            source = work / f"chain{count}{kind}"
            if not source.exists():
                log(f"making {source.name}")
                settings = {"kind": "transformer", "weights": True} if module is layer_chain else {}
                module.write(source, count=count, **settings)
            flags = ["--to", "parquet", "--output", str(work / "large"), "--force"]
            child = subprocess.Popen([sys.executable, "-m", "exporter", str(source), *flags], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                raise SystemExit(f"{source.name}: exit status {os.waitstatus_to_exitcode(status)}")
            receipt = json.loads((work / "large" / source.stem / MANIFEST).read_text("utf-8"))
            peak = format_bytes(receipt["memory"]["peak_rss_bytes"])
            cpu = usage.ru_utime + usage.ru_stime
            yield source.name, f"{receipt['seconds']:.1f} s", f"{cpu:.1f} s", peak


def report(exports: int, model: str, work: Path) -> Iterator[str]:
    yield from machine()
    root, cache = work / "exports", work / "cache"
    if not root.exists():
        log(f"making {exports} exports")
        original = make_original(work / "original", model)
        shares = [range(first, exports, PROCESSES) for first in range(PROCESSES)]
        with ProcessPoolExecutor(PROCESSES) as pool:
            list(pool.map(partial(make_exports, original, root), shares))
    shutil.rmtree(cache, ignore_errors=True)
    made = sum(1 for _ in root.iterdir())
    nbytes = sum(path.stat().st_size for path in root.glob("*/*.parquet"))
    yield f"{made} exports of {model}, {format_bytes(nbytes)} of Parquet, one run of each:"
    yield ""
    yield from table(("question", "rows", *WAYS, "peak memory"), list(rows(root, cache)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=int, default=10_000, metavar="N")
    parser.add_argument("--model", default="MobileNetV3Small", help="a name in keras.applications")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep the exports here, and use those that are here"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report here, too")
    parser.add_argument("--layers", type=int, metavar="N", help="export a .keras archive of so many layers instead")
    parser.add_argument("--nodes", type=int, default=1_000_000, metavar="N", help="with --layers: and an ONNX file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        if options.layers:
            rows_of_models = list(large_models(options.layers, options.nodes, work))
            text = "\n".join([*machine(), *table(("source", "worker", "CPU", "peak memory"), rows_of_models)])
        else:
            text = "\n".join(report(options.exports, options.model, work))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
