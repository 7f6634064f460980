"""The graphs of this package and of tf2onnx for every model of `keras.applications`: nodes, Transposes, latency.

python benchmarks/graph_quality.py --work /var/tmp/quality --output docs/graph_quality.md
python benchmarks/graph_quality.py --work /var/tmp/quality --models MobileNetV3Small,ResNet50 --skip-latency

Both tools get the same model with the same random weights, none of which is zero or one by nature. What tf2onnx made,
or how it failed, is kept in `--work` and used again; ours is made anew in each run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnx
from applications import chosen
from compare import ENVIRONMENT, Prepared, Run, installed, log, machine, measure, table, tf2onnx
from latency import Latency, RefusedError, latencies

from exporter.memory import format_bytes

GIGABYTE = 10**9
LATENCY_LIMIT = 1.05
# Initial values will not do: where a bias or a moving mean is zero, TensorFlow's optimiser drops the addition, and
# graphs come out that no trained model has.
PREPARE = """
import math, sys
import keras, numpy
name, folder = sys.argv[1:]
model = getattr(keras.applications, name)(weights=None)
generator = numpy.random.default_rng(0)
for variable in model.weights:
    if not keras.backend.is_float_dtype(variable.dtype):
        continue
    if "variance" in variable.path or "gamma" in variable.path:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        continue
    inputs = math.prod(variable.shape[:-1])
    scale = math.sqrt(2 / inputs) if inputs > 1 else 0.3
    variable.assign(scale * generator.standard_normal(variable.shape, "float32"))
model.save(f"{folder}/model.keras")
model.export(f"{folder}/saved_model", verbose=False)
"""
# What a kept result of tf2onnx depends on, besides.
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "numpy")
TITLES = (
    *("model", "nodes", "tf2onnx's", "ratio", "Transposes", "tf2onnx's", "ms", "tf2onnx's", "ratio", "difference"),
    *("nodes <=", "Transposes <=", "latency <= 1.05 ×", "tf2onnx"),
)
UNKNOWN = "–"


@dataclass(frozen=True)
class Graph:
    """What a tool made of a model: how many nodes of each type, or why there is no file."""

    ops: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0
    peak_bytes: int = 0

    @property
    def nodes(self) -> int:
        return sum(self.ops.values())

    @property
    def transposes(self) -> int:
        return self.ops.get("Transpose", 0)


@dataclass(frozen=True)
class Kept:
    """A result of tf2onnx in `--work`, with what it depends on."""

    graph: Graph
    versions: Mapping[str, str]
    limit_bytes: int


@dataclass(frozen=True)
class Compared:
    name: str
    ours: Graph
    theirs: Graph
    were_kept: bool
    latency: Latency | None
    refusal: str = ""


def all_ops(graph: onnx.GraphProto) -> Iterator[str]:
    """The type of each node, those inside of loops and branches included.

    `Constant` nodes are left out: they hold a value, as initializers do, and which of both a tool writes is a matter
    of taste.
    """
    for node in graph.node:
        if node.op_type != "Constant":
            yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_ops(inner)


def graph_of(run: Run, path: Path | None) -> Graph:
    failure = run.failure or ("" if path and path.exists() else "no ONNX file was written")
    if failure or path is None:
        return Graph({}, failure, run.seconds, run.peak_bytes)
    model = onnx.load(path, load_external_data=False)
    return Graph(dict(Counter(all_ops(model.graph)).most_common()), "", run.seconds, run.peak_bytes)


def versions() -> dict[str, str]:
    weights = hashlib.sha256(PREPARE.encode()).hexdigest()[:12]
    return {name: installed(name) for name in PACKAGES} | {"weights": weights}


def prepare(name: str, folder: Path) -> Prepared:
    """Save the model in both forms, in a process of its own."""
    command = [sys.executable, "-c", PREPARE, name, str(folder)]
    subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return Prepared(name, folder, ())


def read_kept(path: Path) -> Kept | None:
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Kept(Graph(**found["graph"]), found["versions"], found["limit_bytes"])


def usable(kept: Kept | None, limit_bytes: int) -> bool:
    """Made by the same versions of the same weights, and not given up at a lower memory limit than the present one."""
    if kept is None or kept.versions != versions():
        return False
    return not kept.graph.failure.startswith("ended at") or kept.limit_bytes >= limit_bytes


def their_graph(name: str, folder: Path, limit_bytes: int) -> tuple[Graph, bool]:
    """tf2onnx's graph, and whether it was there already. Leaves `model.keras` and `tf2onnx/model.onnx` in `folder`."""
    kept = read_kept(folder / "tf2onnx.json")
    if kept is not None and usable(kept, limit_bytes):
        return kept.graph, True
    shutil.rmtree(folder, ignore_errors=True)
    (output := folder / "tf2onnx").mkdir(parents=True)
    log(f"{name}: tf2onnx converts")
    model = prepare(name, folder)
    run = measure(tf2onnx(model, output), folder, limit_bytes)
    shutil.rmtree(folder / "saved_model")
    graph = graph_of(run, output / "model.onnx")
    kept = Kept(graph, versions(), limit_bytes)
    # Last, because it says that all else is there.
    (folder / "tf2onnx.json").write_text(json.dumps(asdict(kept), indent=1) + "\n", encoding="utf-8")
    return graph, False


def our_graph(folder: Path, output: Path) -> tuple[Graph, Path | None]:
    flags = ["--to", "onnx", "--opset", "18", "--no-verify", "--quiet", "-o", str(output)]
    run = measure([sys.executable, "-m", "exporter", str(folder / "model.keras"), *flags], folder)
    path = next(output.rglob("*.onnx"), None)
    return graph_of(run, path), path


def compare_one(name: str, work: Path, limit_bytes: int, repeat: int) -> Compared:
    """`repeat` 0: without latency."""
    latency, refusal = None, ""
    folder = work / name
    theirs, kept = their_graph(name, folder, limit_bytes)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        ours, path = our_graph(folder, Path(output))
        both = None if ours.failure or theirs.failure or not repeat else (path, folder / "tf2onnx" / "model.onnx")
        try:
            latency = latencies(*both, repeat) if both else None
        except RefusedError as error:
            refusal = f"; ONNX Runtime does not load its file ({error})"
    log(f"{name}: {ours.nodes or ours.failure} nodes, tf2onnx {theirs.nodes or theirs.failure}{' (kept)' * kept}")
    return Compared(name, ours, theirs, kept, latency, refusal)


def row(one: Compared) -> tuple[str, ...]:
    ours, theirs, latency = one.ours, one.theirs, one.latency
    comparable = not ours.failure and not theirs.failure
    timed = (UNKNOWN,) * 4
    if latency:
        times = (f"{1000 * latency.our_seconds:.1f}", f"{1000 * latency.their_seconds:.1f}")
        timed = (*times, f"{latency.ratio:.2f}", f"{latency.difference:.0e}")
    their_cost = f"{theirs.seconds:.0f} s, {format_bytes(theirs.peak_bytes)}{', kept' * one.were_kept}"
    return (
        one.name,
        f"failed: {ours.failure}" if ours.failure else str(ours.nodes),
        UNKNOWN if theirs.failure else str(theirs.nodes),
        f"{ours.nodes / theirs.nodes:.2f}" if comparable else UNKNOWN,
        UNKNOWN if ours.failure else str(ours.transposes),
        UNKNOWN if theirs.failure else str(theirs.transposes),
        *timed,
        *verdicts(one),
        f"failed: {theirs.failure} ({their_cost})" if theirs.failure else their_cost + one.refusal,
    )


def verdicts(one: Compared) -> tuple[str, str, str]:
    """Nodes, Transposes, latency."""
    if one.ours.failure or one.theirs.failure:
        return UNKNOWN, UNKNOWN, UNKNOWN
    nodes = one.ours.nodes <= one.theirs.nodes
    transposes = one.ours.transposes <= one.theirs.transposes
    latency = yes_or_no(one.latency.ratio <= LATENCY_LIMIT) if one.latency else UNKNOWN
    return yes_or_no(nodes), yes_or_no(transposes), latency


def yes_or_no(holds: bool) -> str:
    return "yes" if holds else "**no**"


def surplus(one: Compared) -> str:
    """Op types of which there are more than in tf2onnx's graph, to start looking from."""
    more = {op: count - one.theirs.ops.get(op, 0) for op, count in one.ours.ops.items()}
    return ", ".join(f"{op} +{count}" for op, count in more.items() if count > 0) or "none"


def report(done: Sequence[Compared], repeat: int) -> Iterator[str]:
    yield from machine()
    yield "Opset 18, dynamic batch, the same weights. Nodes are those of the graph and of the graphs inside of"
    yield "its nodes; `Constant` nodes and initializers are not counted on either side. The last column is the time"
    yield "and the peak memory of tf2onnx's conversion, `kept` where it comes from an earlier run."
    if repeat:
        yield f"Latency: ONNX Runtime, all graph optimisations, 1 thread, batch 1, median of {repeat} interleaved runs;"
        yield "`difference` is the largest one between both outputs, relative to their largest magnitude."
    yield ""
    yield from totals(done)
    yield ""
    yield from table(TITLES, [row(one) for one in done])
    losers = [one for one in done if "**no**" in verdicts(one)[:2]]
    if losers:
        yield ""
        yield "More than tf2onnx has:"
        yield ""
        yield from (f"- {one.name}: {surplus(one)}" for one in losers)


def totals(done: Sequence[Compared]) -> Iterator[str]:
    columns = zip(*map(verdicts, done), strict=True)
    for title, column in zip(TITLES[-4:-1], columns, strict=True):
        if known := [verdict for verdict in column if verdict != UNKNOWN]:
            yield f"- {title} tf2onnx's: {known.count('yes')} of {len(known)} models"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="tf2onnx's results are kept here")
    parser.add_argument("--models", default="", metavar="A,B", help="names in keras.applications (default: all)")
    parser.add_argument("--skip-latency", action="store_true", help="count only")
    parser.add_argument("--repeat", type=int, default=15, metavar="N", help="runs of each graph (default: 15)")
    parser.add_argument("--max-memory", type=float, default=18, metavar="GB", help="end tf2onnx above it (default: 18)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report here, too")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    repeat, limit_bytes = 0 if options.skip_latency else options.repeat, int(options.max_memory * GIGABYTE)
    done = [compare_one(name, options.work.resolve(), limit_bytes, repeat) for name in chosen(options.models)]
    text = "\n".join(report(done, repeat))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
