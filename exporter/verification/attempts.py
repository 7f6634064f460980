"""A source on the first of several sizes of inputs that it takes: what is free may have to be larger than is usual."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from exporter.records import TensorSpec

Inputs = tuple[TensorSpec, ...]
MOST_CHARACTERS = 300


def first_that_runs(
    choices: Sequence[Inputs],
    run: Callable[[Inputs], list[np.ndarray]],
    unfit: tuple[type[Exception], ...],
) -> tuple[int, list[np.ndarray]]:
    """The number of the choice and its outputs, of which at least one should hold a number.

    Where that is so for none, what the first one has that runs; where none runs, the error of the first one is raised,
    if it is one of `unfit`. Other errors are not about sizes.
    """
    first_error: Exception | None = None
    empty: tuple[int, list[np.ndarray]] | None = None
    for number, inputs in enumerate(choices):
        try:
            outputs = run(inputs)
        except unfit as error:
            first_error = first_error or error
            continue
        if not outputs or any(array.size for array in outputs):
            return number, outputs
        empty = empty or (number, outputs)
    if empty is None:
        assert first_error is not None, "there is a choice, and it has not run"
        raise first_error
    return empty


def sentence(error: Exception, choices: Sequence[Inputs]) -> str:
    """What happened, in plain words, and what may help."""
    tried = " and ".join(dict.fromkeys(_sizes(inputs) for inputs in (choices[0], choices[-1])))
    hint = "; --input-shape chooses other sizes than these" if len(choices) > 1 else ""
    return f"the source could not be run for comparison on inputs of {tried}: {plain(error)}{hint}"


def plain(error: Exception) -> str:
    """Without the bold face of Keras, its list of arguments, and TensorFlow's names of nodes."""
    text = re.sub(r"\x1b\[\d*m|\{\{[^}]*\}\}|\[Op:\w+\].*", "", str(error), flags=re.DOTALL)
    text = text.partition("Arguments received by ")[0]
    return f"{type(error).__name__}: {' '.join(text.split())[:MOST_CHARACTERS]}"


def _sizes(inputs: Inputs) -> str:
    return " with ".join("×".join(map(str, spec.shape or ())) or "no axes" for spec in inputs)
