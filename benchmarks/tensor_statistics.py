"""How fast statistics are taken, next to reading the same bytes and NumPy's min and max in the same pieces.

    python benchmarks/tensor_statistics.py [--gigabytes 1] [--dtype float32] [--repeat 5] [--cold]

Prints seconds, user CPU seconds and rates, and the ratio of the two medians. The runs take turns, so that a slow minute
of the machine meets both. `--cold` drops the file from the page cache before each run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import ml_dtypes
import numpy as np

from exporter.lazy import LazyArray
from exporter.statistics import PIECE_BYTES, Surveyor

BLOCK_ELEMENTS = 2**22


def write_elements(path: Path, nbytes: int, dtype: np.dtype) -> None:
    random = np.random.default_rng(0)
    with path.open("wb") as stream:
        for _ in range(nbytes // dtype.itemsize // BLOCK_ELEMENTS):
            values = random.standard_normal(BLOCK_ELEMENTS, np.float32)
            stream.write((values * 40 if dtype.kind in "iu" else values).astype(dtype).tobytes())
        stream.flush()
        os.fsync(stream.fileno())


def tensor_in(descriptor: int, dtype: np.dtype) -> LazyArray:
    """The elements of a file as a matrix of 1024 columns, read piece by piece."""
    count = os.fstat(descriptor).st_size // dtype.itemsize

    def part(start: int, stop: int) -> np.ndarray:
        piece = np.empty(stop - start, dtype)
        os.preadv(descriptor, [piece.view(np.uint8).data], start * dtype.itemsize)
        return piece

    shape = (count // 1024, 1024)
    return LazyArray(shape, dtype, lambda: part(0, count).reshape(shape), part=part)


def min_and_max(tensor: LazyArray) -> None:
    for piece in tensor.pieces(PIECE_BYTES):
        piece.min(), piece.max()


def all_statistics(tensor: LazyArray) -> None:
    with Surveyor() as surveyor:
        surveyor.measure(tensor.pieces(PIECE_BYTES), tensor.shape, tensor.dtype)


def timed(work: Callable[[LazyArray], None], tensor: LazyArray) -> tuple[float, float]:
    """Seconds, and seconds of all processor cores in this process, the kernel's share included."""
    start, cpu = time.perf_counter(), time.process_time()
    work(tensor)
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    dtype = np.dtype(getattr(ml_dtypes, options.dtype, options.dtype))
    works = {"min and max": min_and_max, "statistics": all_statistics}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "elements")
        write_elements(path, int(options.gigabytes * 1e9), dtype)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        with path.open("rb") as stream:
            tensor = tensor_in(stream.fileno(), dtype)
            for _ in range(options.repeat):
                for name, work in works.items():
                    if options.cold:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    taken[name].append(timed(work, tensor))
    seconds = {name: median(run[0] for run in runs) for name, runs in taken.items()}
    for name, runs in taken.items():
        rate = tensor.nbytes / seconds[name] / 1e9
        cpu = median(run[1] for run in runs)
        sys.stdout.write(f"{options.dtype:9} {name:12} {seconds[name]:6.2f} s {cpu:6.2f} s CPU  {rate:5.2f} GB/s\n")
    sys.stdout.write(f"{options.dtype:9} ratio        {seconds['min and max'] / seconds['statistics']:.2f}\n")


if __name__ == "__main__":
    main()
