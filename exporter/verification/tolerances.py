"""How far an output may be from its source's."""

from __future__ import annotations

import json

from exporter.records import Job, ModelGraph

# Half precision keeps 8 to 11 bits, and every framework sums in its own order.
HALF_PRECISION = {"float16": 2e-2, "bfloat16": 1e-1}
# Layers with quantised weights round their activations to 8 bits: where one lies between two steps, the last bit of a
# float32 decides by which of them, 1/127 of the largest activation, it counts.
QUANTISED, QUANTISED_RTOL = ("int8", "uint8"), 2e-2
QUANTISED_STEPS = 2
# With --dequantize nothing is rounded to 8 bits any more, where the source rounds in every layer. The second sample, of
# large numbers, is left out: beyond the range that was calibrated the source saturates.
DEQUANTISED_RTOL = 1e-1


def absolute(job: Job, graph: ModelGraph) -> float:
    """Where an output is quantised, or was just before, it may differ by some of the steps that it has."""
    ends = {spec.name for spec in graph.outputs}
    steps = [1.0 for spec in graph.outputs if spec.dtype in QUANTISED]
    for layer in graph.layers:
        if layer.class_name == "DEQUANTIZE" and ends & {spec.name for spec in layer.outputs or ()}:
            settings = json.loads(layer.config).get("quantization", {})
            steps += [each["scale"] for each in settings.values() if "scale" in each]
    return max([job.atol, *(QUANTISED_STEPS * step for step in steps)])


def relative(job: Job, graph: ModelGraph) -> float:
    dtypes = {output.dtype for layer in graph.layers for output in layer.outputs or ()} | {job.dtype}
    limits = [HALF_PRECISION[dtype] for dtype in dtypes if dtype in HALF_PRECISION]
    limits += [QUANTISED_RTOL for weight in graph.weights if weight.dtype in QUANTISED]
    limits += [DEQUANTISED_RTOL] if job.reading.dequantize else []
    return max([job.rtol, *limits])
