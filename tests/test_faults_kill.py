"""Batches in which something is killed at random moments, and then the same command again: nothing is lost or left.

What is killed is the process of the command, a worker, or the process that makes workers. The seed is printed;
`FAULTS_SEED` repeats the same choices, though not the machine's mood.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.numpy

from exporter import files

pytestmark = [
    pytest.mark.slow,
    # Two minutes on a machine of its own, and ten where ten others want the processors.
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 300.0
# How often chains that go on side by side are hit; a run that ends before that does not count.
SHARES = (67, 67, 66)
Digests = dict[str, dict[str, str]]


class Chain:
    """One batch in a folder of its own, which is started, hit, and started again, until it has done everything."""

    def __init__(self, folder: Path, words: Sequence[str], dice: random.Random) -> None:
        self.folder, self.words, self.dice = folder, words, dice
        self.output, self.temporary = folder / "outputs", folder / "tmp"
        self.hits: Counter[str] = Counter()
        self.completed = 0

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        self.temporary.mkdir(exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(self.temporary)}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "exporter", "batch", "--no-report", *self.words, *more],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self) -> float:
        """To the end, undisturbed. Returns how long it took."""
        started = time.monotonic()
        process = self.start()
        assert process.wait(PATIENCE_SECONDS) == 0, self.log()
        return time.monotonic() - started

    def hit(self, longest_seconds: float, reference: Digests, *more: str) -> None:
        """Start it, kill something, wait for what goes on after that, and look at what is there."""
        process = self.start(*more)
        time.sleep(self.dice.uniform(0.1, longest_seconds))
        target, kind = self.target(process)
        with suppress(psutil.NoSuchProcess):
            target.kill()
            self.hits[kind] += 1
        if kind == "command":
            process.wait()
            self.wait_for_orphans()
        else:
            assert process.wait(PATIENCE_SECONDS) == 0, f"a killed {kind} was not made good:\n{self.log()}"
        found = self.finished()
        assert all(reference[name] == files_found for name, files_found in found.items()), (found, reference)
        if process.returncode == 0:
            self.check_the_end(reference)

    def target(self, process: subprocess.Popen[bytes]) -> tuple[psutil.Process, str]:
        """A worker lives too short to be there at most moments: it is waited for, and then for a moment more."""
        command = psutil.Process(process.pid)
        wanted = self.dice.choice(["command", "command", "command", "worker", "worker", "server"])
        while wanted != "command" and process.poll() is None:
            servers, workers = self.below(command)
            if found := servers if wanted == "server" else workers:
                time.sleep(self.dice.uniform(0, 0.1) if wanted == "worker" else 0)
                return self.dice.choice(found), wanted
            time.sleep(0.01)
        return command, "command"

    def below(self, command: psutil.Process) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The processes that make workers, and the workers."""
        with suppress(psutil.NoSuchProcess):
            found = command.children(recursive=True)
            servers = [each for each in found if each.ppid() == command.pid]
            return servers, [each for each in found if each not in servers]
        return [], []

    def wait_for_orphans(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while alive := list(processes_in(self.folder)):
            assert time.monotonic() < deadline, f"these go on: {alive}"
            time.sleep(0.1)

    def finished(self) -> Digests:
        """The files of each export that has a receipt, as they are; each has to be as the receipt says."""
        found: Digests = {}
        for folder in self.output.glob("*"):
            receipt = files.read_manifest(folder)
            if receipt is not None:
                found[folder.name] = {each["name"]: files.sha256(folder / each["name"]) for each in receipt["files"]}
                assert found[folder.name] == {each["name"]: each["sha256"] for each in receipt["files"]}
        return found

    def check_the_end(self, reference: Digests) -> None:
        """All is there, and nothing else."""
        assert self.finished() == reference
        for folder in self.output.iterdir():
            assert {path.name for path in folder.iterdir()} == {*reference[folder.name], files.MANIFEST}
        self.wait_for_orphans()
        assert list(self.temporary.iterdir()) == []
        self.completed += 1

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cwd", "status"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process


def hit_again_and_again(chain: Chain, count: int) -> None:
    """What was completed is begun anew, without or with the result before in the way."""
    seconds = chain.run()
    reference = chain.finished()
    chain.check_the_end(reference)
    more: Sequence[str] = ()
    while chain.hits.total() < count:
        before = chain.completed
        if not more and set(chain.finished()) == set(reference):
            more = chain.dice.choice([(), ("--force",)])
            if not more:
                shutil.rmtree(chain.output)
        chain.hit(0.9 * seconds, reference, *more)
        more = () if chain.completed > before or chain.dice.random() < 0.7 else more
    chain.run()
    chain.check_the_end(reference)


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture
def chains(tmp_path: Path, seed: int) -> Callable[[Sequence[str], int], list[Chain]]:
    def make(words: Sequence[str], count: int) -> list[Chain]:
        sys.stdout.write(f"FAULTS_SEED={seed}\n")
        found = []
        for number in range(count):
            folder = tmp_path / str(number)
            folder.mkdir()
            found.append(Chain(folder, words, random.Random(seed + number)))
        return found

    return make


def test_200_times_a_batch_that_reads_files(chains: Callable[[Sequence[str], int], list[Chain]]) -> None:
    names = [f"m{number}.safetensors" for number in range(3)]
    several = chains([*names, "--to", "parquet,json", "--jobs", "2"], len(SHARES))
    for chain in several:
        for number, name in enumerate(names):
            weights = {f"layer{layer}.weight": np.full((3, 4), number + layer, np.float32) for layer in range(20)}
            safetensors.numpy.save_file(weights, chain.folder / name)
    with ThreadPoolExecutor(len(several)) as threads:
        list(threads.map(hit_again_and_again, several, SHARES))
    hits = sum((chain.hits for chain in several), Counter())
    sys.stdout.write(f"{hits}, {[chain.completed for chain in several]}\n")
    assert hits.total() >= sum(SHARES)
    assert min(hits[kind] for kind in ("command", "worker", "server")) >= 3
    assert all(chain.completed >= 3 for chain in several)


def test_a_batch_that_writes_onnx_files(chains: Callable[[Sequence[str], int], list[Chain]]) -> None:
    names = ["a.json", "b.json"]
    (chain,) = chains([*names, "--weights", "random", "--to", "onnx,parquet", "--no-verify"], 1)
    for units, name in enumerate(names, 3):
        dense = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense", "units": units}}
        start = {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, 4], "name": "x"},
        }
        model = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [start, dense]}}
        (chain.folder / name).write_text(json.dumps(model))
    hit_again_and_again(chain, 6)
