"""Every model of `keras.applications` through the command, and a table of what its manifest says.

python benchmarks/applications.py --output docs/applications.md
python benchmarks/applications.py --only resnet50,vgg16

Random weights, ONNX and the catalogue, verification on, one model after the other; each export is deleted once it is
read, so that the disk needs room for one model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exporter.sources.detection.applications import application_names, normalise

PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")
TITLES = (
    "model",
    "parameters",
    "weights, MB",
    "ONNX nodes",
    "with a layer",
    "convert, s",
    "in all, s",
    "peak, MB",
    "bound, MB",
    "largest difference",
    "allowed",
    "verification",
)
CONVERSION_STAGES = ("import", "build", "convert", "weights")
MEGABYTE = 10**6


@dataclass(frozen=True)
class Export:
    """What became of one model: its manifest, or the last line that the command printed."""

    name: str
    manifest: dict[str, Any] | None
    failure: str = ""


def export(name: str) -> Export:
    """Run the command in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as output:
        flags = ["--to", "onnx,parquet", "--weights", "random", "--quiet", "-o", output]
        run = subprocess.run(
            [sys.executable, "-m", "exporter", name, *flags], capture_output=True, text=True, check=False
        )
        found = list(Path(output).glob("*/manifest.json"))
        if found:
            return Export(name, json.loads(found[0].read_text(encoding="utf-8")))
    lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    return Export(name, None, lines[-1] if lines else f"exit status {run.returncode}")


def row(done: Export) -> tuple[str, ...]:
    if done.manifest is None:
        return (done.name, *["–"] * (len(TITLES) - 2), f"FAILED: {done.failure}")
    manifest = done.manifest
    verification, memory, nodes = manifest["verification"], manifest["memory"], manifest["onnx_nodes"]
    worst = max(verification["outputs"], key=lambda output: output["max_abs"], default={"max_abs": None, "limit": None})
    stages = {stage["name"]: stage["seconds"] for stage in manifest["stages"]}
    return (
        done.name,
        f"{manifest['params']:,}",
        f"{manifest['weight_bytes'] / MEGABYTE:.1f}",
        str(nodes["total"]),
        f"{nodes['with_layer'] / nodes['total']:.1%}",
        f"{sum(stages.get(name, 0) for name in CONVERSION_STAGES):.1f}",
        f"{manifest['seconds']:.1f}",
        f"{memory['peak_rss_bytes'] / MEGABYTE:.0f}",
        f"{memory['bound_bytes'] / MEGABYTE:.0f}",
        number(worst["max_abs"]),
        number(worst["limit"]),
        verification["status"] + (f" ({verification['reason']})" if verification["reason"] else ""),
    )


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A markdown table; all columns but the first and the last hold numbers."""
    yield f"| {' | '.join(TITLES)} |"
    yield f"| --- |{' ---: |' * (len(TITLES) - 2)} --- |"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def report(done: Sequence[Export]) -> str:
    verified = [item for item in done if item.manifest and item.manifest["verification"]["status"] == "passed"]
    held = [
        item
        for item in done
        if item.manifest and item.manifest["memory"]["peak_rss_bytes"] <= item.manifest["memory"]["bound_bytes"]
    ]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [
        "# All of keras.applications",
        "",
        f"{len(verified)} of {len(done)} models convert and are verified in ONNX Runtime; "
        f"{len(held)} of {len(done)} stay below the memory bound.",
        "Made by `python benchmarks/applications.py`: random weights, opset 18, a dynamic batch. `convert` is the time",
        "from the start of the process to the written ONNX file, `in all` adds the catalogue and the verification;",
        "`bound` is importing TensorFlow + 2 × the largest tensor + 200 MB.",
        "",
        *table([row(item) for item in done]),
        "",
        f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores.",
        "",
    ]
    return "\n".join(lines)


def chosen(only: str) -> list[str]:
    names = application_names()
    if not only:
        return sorted(names.values())
    unknown = [name for name in only.split(",") if normalise(name) not in names]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}")
    return [names[normalise(name)] for name in only.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, separated by commas (default: all)")
    parser.add_argument("--output", type=Path, help="write the table here, too")
    arguments = parser.parse_args()
    done = []
    for name in chosen(arguments.only):
        done.append(export(name))
        print(" | ".join(row(done[-1])), file=sys.stderr, flush=True)
    text = report(done)
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    failed = any(not item.manifest or item.manifest["verification"]["status"] == "mismatch" for item in done)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
