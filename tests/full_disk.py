"""Run by `test_faults.py` in a namespace of its own: exports onto a tiny file system that has ever more free pages.

`full_disk.py MODEL.onnx FOLDER` prints, by format, what happened each time.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from exporter import files, plan, worker
from exporter.formats import FORMATS
from exporter.options import ExportOptions
from exporter.records import Job

PAGE_BYTES = 4096
DISK_PAGES = 1024
# A model that TensorFlow converts, where there is something to convert.
ARCHITECTURE = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "m",
        "layers": [
            {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "x"}},
            {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense", "units": 3}},
        ],
    },
}


def main(model: Path, folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    size = f"size={DISK_PAGES * PAGE_BYTES}"
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(disk)], capture_output=True, check=False)
    if mount.returncode:
        disk.rmdir()
        raise SystemExit(f"CANNOT MOUNT: {mount.stderr.decode().strip()}")
    architecture = folder / "m.json"
    architecture.write_text(json.dumps(ARCHITECTURE))
    try:
        found = {name: attempts(architecture if name == "onnx" else model, disk, name) for name in FORMATS}
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
    sys.stdout.write(json.dumps(found))


def attempts(source: Path, disk: Path, name: str) -> list[dict[str, str]]:
    """Until one succeeds: with 0, 1, 2, 4, … free pages beside the result of an export before."""
    job = job_for(source, disk, name)
    first = run(job)
    assert first == "", first
    before, found = contents(disk / job.name), []
    for pages in (0, *(2**power for power in range(10))):
        ballast = disk / "ballast"
        free = free_bytes(disk)
        ballast.write_bytes(bytes(max(free - pages * PAGE_BYTES, 0)))
        error = run(job)
        left = "as before" if contents(disk / job.name) == before else str(sorted(contents(disk / job.name)))
        found.append({"pages": str(pages), "error": error, "left": left})
        ballast.unlink()
        if not error:
            break
    for path in (disk / job.name).iterdir():
        path.unlink()
    return found


def job_for(source: Path, disk: Path, name: str) -> Job:
    weights = "random" if name == "onnx" else "auto"
    options = ExportOptions(formats=(name,), output=str(disk), weights=weights, verify=False)
    (job,) = plan.plan([str(source)], options)
    assert isinstance(job, Job), job
    return job


def run(job: Job) -> str:
    """The error, or nothing."""
    if "onnx" in job.formats:
        from exporting import run_here

        outcome = run_here(job)
    else:
        outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
    return "{type}: {where}: {what}: {why}".format(**outcome.error) if outcome.error else ""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: files.sha256(path) if path.is_file() else "folder" for path in folder.iterdir()}


def free_bytes(disk: Path) -> int:
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
