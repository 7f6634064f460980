"""The executor of a Ray cluster: each job is a task of Ray's, with what it needs of processors and memory.

Ray decides where and when a task runs, and repeats it where a node is lost. On the node the job is done as on this
machine, in a child process of its own; neither the batch nor Ray's own processes import TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter import __version__, wire
from exporter.batch import ray_cluster, ray_task
from exporter.batch.executor import Ended, Event, Message, Started
from exporter.batch.shared_folder import SharedFolder
from exporter.batch.tasks import Policy, Task
from exporter.errors import ExportError, ResourceError, TransientError
from exporter.memory import format_bytes
from exporter.records import Outcome

CPUS_PER_JOB = 1
# How often Ray may repeat a job whose node, or whose process there, was lost.
LOST_NODE_RETRIES = 3
# Jobs that wait in Ray's own queue: so many that places never stay empty, and that an autoscaler sees the demand.
QUEUED_JOBS = 16
# A job that no node can take would wait for ever, also where the node that could have taken it has gone.
FEASIBLE_SECONDS = 5.0
# How long to wait for what a job told before its end; with a node that was lost right after it, it may be lost, too.
LETTERS_SECONDS = 30.0
# From asking a job to end to ending it without asking.
PATIENCE_SECONDS = 10.0


@dataclass
class _Sent:
    task: Task
    reference: Any
    begun: bool = False
    rss_bytes: int = 0
    why_stopped: str = ""
    kill_at: float | None = None
    recalled: bool = False
    letters: int = 0

    def read(self, event: wire.Event | None) -> Message:
        self.letters += 1
        if event is None:
            # Where Ray repeats a job, those of the first attempt do not count.
            self.begun, self.letters = True, 1
            return Started(self.task)
        if isinstance(event, wire.MemoryEvent):
            self.rss_bytes = event.rss_bytes
        return Event(self.task, event)


@dataclass
class _End:
    """Told when everything before it has come, or is not to be expected any more."""

    sent: _Sent
    message: Ended
    letters: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        return self.sent.letters >= self.letters or time.monotonic() - self.at > LETTERS_SECONDS


class RayExecutor:
    """`execute` goes to the nodes as it is; see `exporter.batch.execution.execute`."""

    def __init__(self, execute: ray_task.Execute, policy: Policy, *, address: str | None = None) -> None:
        """Connects, which takes seconds. Raises UsageError and ResourceError."""
        self._ray, self.description = ray_cluster.connect(address, policy)
        self._most = policy.jobs
        self._sent: dict[int, _Sent] = {}
        self._failed: list[Message] = []
        self._ends: dict[int, _End] = {}
        self._folders: dict[Path, SharedFolder] = {}
        self._nodes, self._asked_nodes = ray_cluster.nodes(self._ray), time.monotonic()
        self.jobs = policy.jobs or int(sum(node.cpus for node in self._nodes) // CPUS_PER_JOB)
        self.limit_bytes = sum(node.memory_bytes for node in self._nodes)
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        self._mailbox = self._ray.remote(num_cpus=0, scheduling_strategy=here)(ray_task.Mailbox).remote()
        # What jobs tell before it is there would come when short ones have long ended.
        self._ray.get(self._mailbox.ready.remote())
        self._letters = self._mailbox.take.remote()
        self._execute = self._ray.put(execute)
        self._carry_out = self._ray.remote(max_retries=LOST_NODE_RETRIES)(ray_task.carry_out)

    def room_for(self, task: Task, running: Collection[Task]) -> bool:
        if self._most is not None and len(running) >= self._most:
            return False
        return sum(not each.begun for each in self._sent.values()) < QUEUED_JOBS

    def start(self, task: Task) -> None:
        try:
            self._require_node(task)
            mark = self._mark(task)
        except ExportError as error:
            self._failed.append(Ended(task, _failed(task, error)))
            return
        options = {"num_cpus": CPUS_PER_JOB, "memory": task.need_bytes, "name": task.job.name}
        job = ray_task.independent(task.job)
        arguments = (task.number, job, self._execute, mark, __version__, self._mailbox)
        self._sent[task.number] = _Sent(task, self._carry_out.options(**options).remote(*arguments))

    def messages(self, timeout: float) -> list[Message]:
        self._look_after()
        found, self._failed = self._failed, []
        if found:
            return found
        ours = {each.reference: each for each in self._sent.values()}
        waiting = [self._letters, *ours]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout, fetch_local=False)
        if ready:
            # All that is there: asking once for each would be slow where many jobs end.
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        if self._letters in ready:
            found += self._open_letters()
        for reference in ready:
            if reference in ours:
                self._take(ours[reference])
        return found + self._ends_that_are_due()

    def stop(self, task: Task, why: str) -> None:
        if sent := self._sent.get(task.number):
            sent.why_stopped = why
            self._cancel(sent)

    def recall(self) -> None:
        """Take back what is still in Ray's queue."""
        for sent in self._sent.values():
            if not sent.begun:
                sent.recalled = True
                self._cancel(sent)

    def watch_memory(self) -> int:
        """What the jobs hold on all nodes, as they told last. Ray, and each job's own watch, keep the limits."""
        return sum(each.rss_bytes for each in self._sent.values())

    def close(self) -> None:
        for sent in self._sent.values():
            self._cancel(sent)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (self._sent or self._ends) and time.monotonic() < deadline:
            self.messages(0.1)
        self._ray.shutdown()
        for folder in self._folders.values():
            folder.close()

    def _require_node(self, task: Task) -> None:
        """Raises ResourceError where no node has what the job needs, even if it had nothing else to do."""
        if time.monotonic() - self._asked_nodes >= FEASIBLE_SECONDS:
            self._nodes, self._asked_nodes = ray_cluster.nodes(self._ray), time.monotonic()
        if any(node.cpus >= CPUS_PER_JOB and node.memory_bytes >= task.need_bytes for node in self._nodes):
            return
        largest = max((node.memory_bytes for node in self._nodes if node.cpus >= CPUS_PER_JOB), default=0)
        raise ResourceError(
            "fits on no node of the cluster",
            where=task.job.name,
            why=f"it needs about {format_bytes(task.need_bytes)}, and the largest node offers {format_bytes(largest)}",
            hint="add a node with more (`ray start --memory`), or use --executor local on a machine that has it",
        )

    def _mark(self, task: Task) -> str | None:
        """Where nodes see that they share the folder of results; None for an object store. Raises OutputError."""
        if "://" in task.job.output_path:
            return None
        folder = Path(task.job.output_path).absolute().parent
        if folder not in self._folders:
            self._folders[folder] = SharedFolder(folder)
        return str(self._folders[folder].mark)

    def _look_after(self) -> None:
        """Jobs that do not end although they were asked to, and those that no node can take any more."""
        now = time.monotonic()
        for sent in self._sent.values():
            if sent.kill_at is not None and now >= sent.kill_at:
                self._ray.cancel(sent.reference, force=True)
                sent.kill_at = None
        if now - self._asked_nodes >= FEASIBLE_SECONDS:
            for sent in [each for each in self._sent.values() if not each.begun]:
                try:
                    self._require_node(sent.task)
                except ResourceError as error:
                    self._ray.cancel(sent.reference)
                    del self._sent[sent.task.number]
                    self._failed.append(Ended(sent.task, _failed(sent.task, error)))

    def _open_letters(self) -> list[Message]:
        letters: list[ray_task.Letter] = self._ray.get(self._letters)
        self._letters = self._mailbox.take.remote()
        found: list[Message] = []
        for letter in letters:
            ended = self._ends.get(letter.number)
            if sent := ended.sent if ended else self._sent.get(letter.number):
                found.append(sent.read(letter.event))
        return found

    def _cancel(self, sent: _Sent) -> None:
        self._ray.cancel(sent.reference)
        sent.kill_at = time.monotonic() + PATIENCE_SECONDS

    def _take(self, sent: _Sent) -> None:
        """What Ray has of a job that has ended."""
        del self._sent[sent.task.number]
        try:
            done: ray_task.Done = self._ray.get(sent.reference)
            outcome = replace(done.outcome, output_path=sent.task.job.output_path)
            end = _End(sent, Ended(sent.task, outcome), done.letters)
        except self._ray.exceptions.RayError as error:
            end = _End(sent, Ended(sent.task, _failed(sent.task, self._lost(sent, error)), sent.recalled))
        self._ends[sent.task.number] = end

    def _ends_that_are_due(self) -> list[Message]:
        due = [end for end in self._ends.values() if end.is_due]
        for end in due:
            del self._ends[end.sent.task.number]
        return [end.message for end in due]

    def _lost(self, sent: _Sent, error: Exception) -> ExportError:
        """Why there is no outcome that a node sent."""
        job, text = sent.task.job, str(error)
        if sent.why_stopped or sent.recalled:
            return TransientError("was stopped", where=job.name, why=sent.why_stopped, hint="run it again")
        if "No module named 'exporter" in text:
            why, hint = "export-model is not installed on a node of the cluster", "install it on every node"
            return ResourceError("cannot be run there", where=job.name, why=why, hint=f"{hint}: {ray_cluster.INSTALL}")
        why = f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:300]}"
        return ResourceError("was lost on the cluster", where=job.name, why=why, hint="run it again")


def _failed(task: Task, error: ExportError) -> Outcome:
    return Outcome(task.job.name, "failed", task.job.output_path, error=error.as_record())
