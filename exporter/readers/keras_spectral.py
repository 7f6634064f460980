"""`SpectralNormalization`: the layer around has the kernel of the layer inside as its own, and is before it."""

from __future__ import annotations

from exporter.readers import Unexplained
from exporter.readers.keras_model import RawLayer

SPECTRAL = "SpectralNormalization"
KERNELS = ("kernel", "embeddings")


def lend_kernel(around: RawLayer, inside: RawLayer) -> None:
    """Let the kernel stand with `around`, which the file keeps in both groups. Raises Unexplained."""
    weights = inside.weights
    if not weights or weights[0].name not in KERNELS or any(weight.number is not None for weight in weights):
        raise Unexplained(f"a {SPECTRAL} of a {inside.class_name}")
    kernel, *rest = weights
    around.weights = [kernel._replace(is_of_inside=True, changes=inside.trainable), *(around.weights or ())]
    inside.weights = [weight._replace(number=place) for place, weight in enumerate(rest, start=1)]
    inside.lent = 1
