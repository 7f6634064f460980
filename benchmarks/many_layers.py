"""Time per layer, stage by stage, of models with 2,000 and with 20,000 layers: nothing may be quadratic.

python benchmarks/many_layers.py --layers 2000,20000 --output many_layers.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import compare
from compare import log, machine, table

os.environ.update(compare.ENVIRONMENT)  # before `layer_chain` imports Keras

FORMATS = "onnx,parquet,dot,svg"
# What any model costs, whatever its size.
FIXED = ("import",)


@dataclass(frozen=True)
class Run:
    """One export: the seconds of each stage, as its manifest has them."""

    layers: int
    nodes: int
    peak_bytes: int
    seconds: dict[str, float]


def export(archive: Path, output: Path) -> Run:
    """In a process of its own. Raises CalledProcessError when it fails."""
    flags = ["--to", FORMATS, "--weights", "random", "--no-verify", "--force", "--output", str(output)]
    subprocess.run([sys.executable, "-m", "exporter", str(archive), *flags], check=True, stdout=subprocess.DEVNULL)
    manifest = json.loads((output / archive.stem / "manifest.json").read_text("utf-8"))
    return Run(
        manifest["layers"],
        manifest["onnx_nodes"]["total"],
        manifest["memory"]["peak_rss_bytes"],
        {stage["name"]: stage["seconds"] for stage in manifest["stages"]},
    )


def middle(runs: Sequence[Run]) -> Run:
    """The median of each stage."""
    first = runs[0]
    seconds = {name: median(run.seconds[name] for run in runs) for name in first.seconds}
    return Run(first.layers, first.nodes, max(run.peak_bytes for run in runs), seconds)


def rows(small: Run, large: Run) -> Iterator[tuple[str, ...]]:
    for name in small.seconds:
        yield row(name, small, large, (name,))
    yield row("**without import**", small, large, [name for name in small.seconds if name not in FIXED])


def row(title: str, small: Run, large: Run, stages: Sequence[str]) -> tuple[str, ...]:
    per_layer = [sum(run.seconds[name] for name in stages) / run.layers for run in (small, large)]
    seconds = [f"{each * run.layers:.2f} s" for each, run in zip(per_layer, (small, large), strict=True)]
    fixed = any(name in FIXED for name in stages) or per_layer[0] == 0
    return (
        title,
        *seconds,
        *("–" if fixed else f"{1000 * each:.2f} ms" for each in per_layer),
        "–" if fixed else f"{per_layer[1] / per_layer[0]:.2f}",
    )


def report(counts: tuple[int, int], repeat: int) -> Iterator[str]:
    import layer_chain

    yield from machine()
    with tempfile.TemporaryDirectory() as folder:
        for kind in layer_chain.CHAINS:
            archives = [Path(folder, f"{kind}_{count}.keras") for count in counts]
            for archive, count in zip(archives, counts, strict=True):
                layer_chain.write(archive, kind, count)
            runs: list[list[Run]] = [[], []]
            for number in range(1, repeat + 1):
                for archive, found in zip(archives, runs, strict=True):
                    log(f"{archive.stem}: run {number} of {repeat}")
                    found.append(export(archive, Path(folder, "outputs")))
            small, large = map(middle, runs)
            titles = ("stage", *(f"{run.layers:,} layers" for run in (small, large)), *["per layer"] * 2, "ratio")
            yield f"A {kind} chain: {small.nodes:,} and {large.nodes:,} ONNX nodes, peak memory"
            yield f"{compare.format_bytes(small.peak_bytes)} and {compare.format_bytes(large.peak_bytes)}."
            yield ""
            yield from table(titles, list(rows(small, large)))
            yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="2000,20000", metavar="N,M", help="sizes of the two models")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="runs of each, of which the median counts")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report here, too")
    options = parser.parse_args()
    small, large = map(int, options.layers.split(","))
    text = "\n".join(report((small, large), options.repeat))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
