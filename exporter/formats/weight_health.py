"""What the statistics of weights say about their health, as one verdict for all the weights of a node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exporter.records import TensorStatistics, Weight


@dataclass(frozen=True)
class Verdict:
    """`color` is light enough for black text."""

    text: str
    color: str


# The worst first. A vector of equal numbers is how initializers leave a bias or a norm, and nothing to worry about.
NOT_FINITE = Verdict("NaN or infinite", "#f4a6a6")
CONSTANT = Verdict("all elements equal", "#f7c59f")
DEAD = Verdict("dead filters", "#fbe3a1")
HEALTHY = Verdict("nothing suspicious", "#cdebc5")
VERDICTS = (NOT_FINITE, CONSTANT, DEAD, HEALTHY)


def verdict(
    names: Iterable[str], weights: Mapping[str, Weight], statistics: Mapping[str, TensorStatistics]
) -> Verdict | None:
    """The worst verdict over these weights; None where there are none, or no statistics of them."""
    found = [judged(weights[name], statistics[name]) for name in names if name in weights and name in statistics]
    return min(found, key=VERDICTS.index, default=None)


def judged(weight: Weight, found: TensorStatistics) -> Verdict:
    if found.nans or found.infs:
        return NOT_FINITE
    if found.distinct == 1 and math.prod(weight.shape) > 1:
        return CONSTANT if len(weight.shape) > 1 else HEALTHY
    return DEAD if found.dead_filters else HEALTHY
