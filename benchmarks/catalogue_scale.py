"""The catalogue of very large models, and the example questions over many exports.

The questions read the files themselves, make the cached copy, and use it.

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
from exporter.query.questions import QUESTIONS
from exporter.schema import SCHEMAS

PROCESSES = 2
WAYS = ("without the copy", "makes the copy", "with the copy")
# One question in a process of its own, as a user asks it; `few` is the number of files that are read without a copy.
ASK = """
import json, resource, sys, time
start = time.perf_counter()
from exporter import open_catalogue
from exporter.query import compaction
from exporter.query.questions import QUESTIONS
place, question, few = sys.argv[1:]
compaction.FEW_FILES = int(few)
rows = open_catalogue(place).sql(QUESTIONS[question].sql).to_arrow().num_rows
seconds = time.perf_counter() - start
print(json.dumps([seconds, rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
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


def ask(place: Path, question: str, cache: Path, few: int) -> tuple[float, int, int]:
    """Seconds from the imports to the last row, rows, and the peak of memory in bytes."""
    environment = os.environ | ENVIRONMENT | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", ASK, str(place), question, str(few)]
    answer = subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds, rows, peak_bytes = json.loads(answer.stdout)
    return seconds, rows, peak_bytes


def rows(place: Path, cache: Path, exports: int) -> Iterator[tuple[str, ...]]:
    for question in QUESTIONS:
        log(question)
        made = set(cache.rglob("*.parquet"))
        # The copy is made of fewer files than a user's query would do it for, so that small runs measure it, too.
        answers = [ask(place, question, cache, few) for few in (exports, 0, 0)]
        if len({count for _, count, _ in answers}) != 1:
            raise SystemExit(f"{question}: not the same number of rows in each way: {answers}")
        # A copy is made once for each table, by the first question that uses it.
        is_first = set(cache.rglob("*.parquet")) != made
        seconds = [f"{value:.2f} s" for value, *_ in answers]
        peak = format_bytes(max(peak_bytes for *_, peak_bytes in answers))
        yield question, str(answers[0][1]), seconds[0], seconds[1] if is_first else "–", seconds[2], peak


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
    yield from table(("question", "rows", *WAYS, "peak memory"), list(rows(root, cache, made)))


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
