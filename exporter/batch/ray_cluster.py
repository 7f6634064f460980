"""The connection to a Ray cluster: found, joined or started, without Ray's own words on the user's terminal."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exporter.batch.tasks import Policy
from exporter.errors import ResourceError, UsageError

INSTALL = "pip install 'export-model[ray]'"
ADDRESS_VARIABLE = "RAY_ADDRESS"
LOCAL, AUTO = "local", "auto"
LOOPBACK = "127.0.0.1"
KNOCK_SECONDS = 10.0
# Only outcomes, a few kB each, are kept there. Ray refuses less than 75 MiB.
OBJECT_STORE_BYTES = 100 * 2**20
# Set before `ray` is imported: no reports to its makers, and no advice about accelerators.
QUIET_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Node:
    """What a living node has in all, whether or not it is in use."""

    name: str
    cpus: float
    memory_bytes: int


def connect(address: str | None, policy: Policy) -> tuple[Any, str]:
    """The connected module `ray`, and a sentence about where. Raises UsageError and ResourceError.

    Without an address, here or in RAY_ADDRESS, a Ray that lives as long as this process is started on this machine
    alone, with as many places and as much memory as `policy` says.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--executor ray needs Ray", why="it is not installed", hint=INSTALL)
    wanted = address or os.environ.get(ADDRESS_VARIABLE) or LOCAL
    if "://" in wanted:
        why = "the batch itself has to run on a machine of the cluster, because it looks at the results"
        raise UsageError(f"--ray-address {wanted} cannot be used", why=why, hint="HOST:PORT or auto, there")
    os.environ.update(QUIET_ENVIRONMENT)
    ray = importlib.import_module("ray")
    with _own_signals():
        if wanted == LOCAL:
            _start(ray, policy)
            return ray, "no address of a Ray cluster: one was started for this batch, on this machine alone"
        _join(ray, wanted)
    found = nodes(ray)
    cpus = sum(node.cpus for node in found)
    return ray, f"Ray cluster {ray.get_runtime_context().gcs_address}: {len(found)} nodes, {cpus:g} CPUs"


def _join(ray: Any, address: str) -> None:
    """Raises ResourceError; `auto` is the cluster of which this machine is part."""
    try:
        if address != AUTO:
            _knock(ray, address)
        _initialise(ray, address=address)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        hint = "ray status, on a machine of the cluster, says whether it is there"
        raise ResourceError("cannot reach the Ray cluster", where=address, why=why, hint=hint) from error


def _knock(ray: Any, address: str) -> None:
    """Ray itself would wait for minutes; as Ray does, the loopback address is taken for this machine's own.

    Raises OSError where nobody listens and ValueError for what is no address.
    """
    host, _, port = address.rpartition(":")
    if host in ("localhost", LOOPBACK):
        host = ray.util.get_node_ip_address()
    socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def nodes(ray: Any) -> list[Node]:
    return [
        Node(
            str(each["NodeManagerHostname"]),
            float(each["Resources"].get("CPU", 0)),
            int(each["Resources"].get("memory", 0)),
        )
        for each in ray.nodes()
        if each["Alive"]
    ]


def _start(ray: Any, policy: Policy) -> None:
    """On the loopback interface: nobody else can reach it."""
    try:
        _initialise(
            ray,
            address="local",
            num_cpus=policy.jobs,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _memory=policy.max_memory_bytes,
            _node_ip_address=LOOPBACK,
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = str(error).strip().partition("\n")[0]
        raise ResourceError("Ray cannot be started", why=why, hint="--executor local needs no Ray") from error


def _initialise(ray: Any, **settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(log_to_driver=False, logging_level="CRITICAL", **settings)
    # What nodes have to say about themselves is printed past `log_to_driver`, and this is the only switch for it.
    vars(importlib.import_module("ray._private.worker"))["_worker_logs_enabled"] = False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here the batch decides what it means."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
