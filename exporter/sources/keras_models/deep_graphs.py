"""Models with more layers in a row than Python allows calls within calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Keras finds the layers of a functional model by a function that calls itself once for each layer of depth. Calls of
# Python functions by Python functions need none of the C stack (since Python 3.11), so that this is only memory.
DEEPEST = 1_000_000


@contextmanager
def deep_recursion() -> Iterator[None]:
    """For building models, and for nothing that parses text: nested JSON does use the C stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
