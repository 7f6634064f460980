"""How operations are counted, for layers and for ONNX nodes alike.

A multiply-accumulate (MAC) is one multiplication and one addition of a matrix product or convolution; positions of a
convolution's window that lie in the padding count as well. Every other operation on one element counts as one
floating-point operation: arithmetic, comparisons, choices, rounding, and each function of a mathematics library (exp,
log, tanh, erf, logistic sigmoid, sqrt, power). Integers count like floats. Copying, casting, reshaping and looking up
count nothing, and neither does what depends on weights alone, such as the scale that a batch norm has at inference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    """`other` are the floating-point operations that are not part of a MAC; None when they are not known."""

    macs: int = 0
    other: int | None = 0

    @property
    def flops(self) -> int | None:
        return None if self.other is None else 2 * self.macs + self.other

    def __add__(self, more: Operations) -> Operations:
        known = self.other is not None and more.other is not None
        return Operations(self.macs + more.macs, self.other + more.other if known else None)  # type: ignore[operator]

    def __mul__(self, times: int) -> Operations:
        return Operations(self.macs * times, None if self.other is None else self.other * times)


NOTHING = Operations()

# Operations on one element of an activation function, by its name in keras.activations; from its definition there.
ACTIVATION_FLOPS = {
    "linear": 0,
    "relu": 1,
    "relu6": 2,  # two bounds
    "leaky_relu": 2,
    "prelu": 2,
    "threshold": 2,
    "hard_tanh": 2,
    "hard_sigmoid": 4,  # x ÷ 6 + 0.5 between two bounds
    "hard_silu": 5,
    "hard_swish": 5,
    "sigmoid": 1,
    "tanh": 1,
    "exponential": 1,
    "silu": 2,
    "swish": 2,
    "glu": 2,
    "elu": 3,  # exp, − 1, choice
    "selu": 4,
    "celu": 4,
    "softplus": 3,  # exp, + 1, log
    "softsign": 3,
    "log_sigmoid": 4,
    "mish": 5,
    "gelu": 5,  # x ÷ √2, erf, + 1, × x, × 0.5
    "gelu_tanh": 9,  # x³ is two; then × 0.044715, + x, × √(2/π), tanh, + 1, × x, × 0.5
    "softmax": 5,  # largest, −, exp, sum, ÷
    "log_softmax": 5,
    "tanh_shrink": 2,
    "hard_shrink": 3,
    "soft_shrink": 6,  # two comparisons, two differences, two choices
    "squareplus": 5,
}

SOFTMAX = ACTIVATION_FLOPS["softmax"]
# Mean, −, square, sum, × reciprocal of the deviation; the scale and the shift come on top.
LAYER_NORM = 5
# Square, sum, × reciprocal of the root; the scale comes on top.
RMS_NORM = 3
# × and +, both made of weights.
BATCH_NORM = 2
# One linear interpolation between two values: −, ×, +.
LERP = 3


def count(sizes: Sizes) -> int:
    """Elements of a tensor."""
    return math.prod(sizes)


def product(output: Sizes, summed: int) -> Operations:
    """A matrix product or convolution: each element of `output` is a sum of `summed` products."""
    return Operations(macs=count(output) * summed)


def einsum_macs(equation: str, shapes: Iterable[Sizes]) -> int | None:
    """Multiply-accumulates of an Einstein sum: the product of the sizes of all its indices; None when it does not fit.

    With more than two operands that is what one nested loop takes; libraries may find a cheaper order.
    """
    sizes: dict[str, int] = {}
    rest: Sizes = ()
    for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.partition("...")
        hidden = len(shape) - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            return None
        sizes |= _larger(
            sizes, zip(before + after, (*shape[: len(before)], *shape[len(before) + hidden :]), strict=True)
        )
        rest = max(rest, shape[len(before) : len(before) + hidden], key=math.prod)
    return math.prod(sizes.values()) * math.prod(rest)


def _larger(known: Mapping[str, int], found: Iterable[tuple[str, int]]) -> dict[str, int]:
    """A size of 1 is stretched to what the other operand has."""
    return {index: max(size, known.get(index, 1)) for index, size in found}
