"""What a job will need: an estimate of the memory of all its processes, made before anything is opened.

Memory decides how many jobs run side by side, so an estimate is on the high side; what turns out to need more is
ended and tried again alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from exporter import files
from exporter.errors import ExportError
from exporter.memory import conversion_bound_bytes
from exporter.readers import is_only_read
from exporter.records import Job
from exporter.sources.detection.kinds import APPLICATION
from exporter.sources.digest import nbytes
from exporter.sources.keras_models.application_sizes import SIZES, Sizes
from exporter.storage.addresses import is_address

# Importing TensorFlow with all that a conversion needs; measured, 450 to 650 MB.
IMPORT_BYTES = 650 * 10**6
# Reading a file without TensorFlow: Python, pyarrow, h5py, and the rows.
READING_BYTES = 200 * 10**6
# What a source is taken for whose size nobody knows, such as a Python function.
UNKNOWN = Sizes(100 * 10**6, 400 * 10**6, 100 * 10**6)
# The verification's own: `exporter.verification.verifying` says where they come from.
WEIGHT_COPIES = 3


def need_bytes(job: Job) -> int:
    """The estimated peak of the job's processes together, in bytes."""
    if is_only_read(job):
        return READING_BYTES
    sizes = _sizes(job)
    conversion = conversion_bound_bytes(IMPORT_BYTES, sizes.largest_tensor_bytes)
    if "onnx" not in job.formats or not job.verify:
        return conversion
    # The worker waits while the source runs, then the ONNX file: its own memory is that of the import and the graph.
    return max(conversion, 2 * IMPORT_BYTES + WEIGHT_COPIES * sizes.weight_bytes + sizes.activation_bytes)


def _sizes(job: Job) -> Sizes:
    if job.kind == APPLICATION and job.source in SIZES:
        return SIZES[job.source]
    try:
        total = (job.origin.nbytes or 0) if job.origin else nbytes(job)
    except ExportError:
        # The export, which needs the source too, says what is wrong with it.
        return UNKNOWN
    total = total or UNKNOWN.weight_bytes
    return Sizes(_largest_before(job) or total, total, UNKNOWN.activation_bytes)


def _largest_before(job: Job) -> int | None:
    """The largest tensor of an earlier export of a source of the same size, from its receipt."""
    if is_address(job.output_path):
        # A request for each job would take longer than the estimate is worth.
        return None
    manifest = files.read_manifest(Path(job.output_path)) or {}
    found = manifest.get("memory")
    if manifest.get("source") != os.path.basename(job.source) or not isinstance(found, dict):
        return None
    largest = found.get("largest_tensor_bytes")
    return largest if isinstance(largest, int) else None
