"""Random small functional models of Keras: a description that hypothesis draws and shrinks, and the model made of it.

A `Recipe` prints as the expression that makes it, and `build(recipe)` makes the same model each time. A step that does
not suit what is there, such as a window larger than the image, is left out: so each part of a recipe is a recipe, and
shrinking can drop whatever does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import keras
from hypothesis import strategies as st
from recipe_steps import FLOAT, KINDS, SAME, SAME_BUT_LAST, TOKENS, Kind

LARGEST_TENSOR = 4096
AGAIN, MODEL = "again", "model"
# One step of so many is the name: a kind each, and these more often.
WEIGHTS = {AGAIN: 6, MODEL: 6, "Conv2D": 4, "BatchNormalization": 4, "Dense": 4, "Add": 3, "Concatenate": 3}


@dataclass(frozen=True)
class Step:
    """Something to call: a key of `KINDS`, `again` for a call of what was called before, or `model` for a nested one.

    `takes` says which tensors it takes: numbers modulo the count of those that it can take, the latest first.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Recipe:
    """`inputs` are shapes without the batch, and dtypes. What nothing takes is an output; `outputs` picks more."""

    inputs: tuple[tuple[tuple[int, ...], str], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...] = ()


def build(recipe: Recipe) -> Any:
    graph = Graph([keras.Input(shape, dtype=dtype) for shape, dtype in recipe.inputs])
    graph.follow(recipe.steps)
    return graph.model(recipe.outputs)


class Graph:
    """The tensors so far, the indices of those that something took, and each thing called with the shapes it took."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs, self.tensors = list(inputs), list(inputs)
        self.taken: set[int] = set()
        self.called: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def model(self, more: Sequence[int] = ()) -> Any:
        ends = [self.tensors[at] for at in range(len(self.inputs), len(self.tensors)) if at not in self.taken]
        ends += [self.tensors[at % len(self.tensors)] for at in more]
        return keras.Model(self.inputs, ends or self.inputs)

    def follow(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.name == AGAIN:
                self.call_again(step)
            elif step.name == MODEL:
                self.call_model(step)
            else:
                self.call_new(step, KINDS[step.name])

    def call_new(self, step: Step, kind: Kind) -> None:
        picked = self.pick(step.takes[0], lambda x: len(x.shape) in kind.ranks and x.dtype == kind.dtype)
        if picked and kind.inputs == 2:
            one = self.tensors[picked[0]]
            picked += self.pick(step.takes[1], lambda x: x.dtype == kind.dtype and alike(one, x, kind.like))
        # What Keras refuses, as there is no room for a window, no such axis or nothing to divide evenly, is no step.
        with suppress(ValueError, IndexError):
            if len(picked) == kind.inputs:
                self.call(kind.make(**step.settings), picked)

    def call_again(self, step: Step) -> None:
        if self.called:
            call, shapes = self.called[step.settings["which"] % len(self.called)]
            picked = []
            for take, wanted in zip(step.takes, shapes, strict=False):
                picked += self.pick(take, lambda x, wanted=wanted: (x.shape, x.dtype) == wanted)
            self.call(call, picked)

    def call_model(self, step: Step) -> None:
        picked = self.pick(step.takes[0], lambda x: True)
        taken = self.tensors[picked[0]]
        inner = Graph([keras.Input(taken.shape[1:], dtype=taken.dtype)])
        inner.follow(step.settings["steps"])
        self.call(inner.model(), picked)

    def pick(self, take: int, suits: Callable[[Any], bool]) -> list[int]:
        suitable = [at for at, tensor in enumerate(self.tensors) if suits(tensor)]
        return [suitable[-1 - take % len(suitable)]] if suitable else []

    def call(self, call: Callable[..., Any], picked: Sequence[int]) -> None:
        taken = [self.tensors[at] for at in picked]
        outputs = keras.tree.flatten(call(*taken))
        if all(x.shape[0] is None and 0 < math.prod(x.shape[1:]) <= LARGEST_TENSOR for x in outputs):
            self.tensors += outputs
            self.taken.update(picked)
            self.called.append((call, tuple((x.shape, x.dtype) for x in taken)))


def alike(one: Any, other: Any, like: str) -> bool:
    if like == SAME:
        return one.shape == other.shape
    return len(one.shape) == len(other.shape) and (like != SAME_BUT_LAST or one.shape[:-1] == other.shape[:-1])


NAMES = [name for name in (*KINDS, AGAIN, MODEL) for _ in range(WEIGHTS.get(name, 1))]
TAKES = st.tuples(st.integers(0, 3), st.integers(0, 3))
VECTOR = st.tuples(st.integers(1, 6))
SERIES = st.tuples(st.integers(2, 8), st.integers(1, 4))
IMAGE = st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(1, 4))
# More images than anything else, because most kinds of layers take them.
SHAPES = st.sampled_from([VECTOR, SERIES, IMAGE, IMAGE, IMAGE]).flatmap(lambda shape: shape)
INPUTS = st.tuples(SHAPES, st.just(FLOAT)) | st.tuples(SHAPES, st.just(FLOAT)) | st.tuples(VECTOR, st.just(TOKENS))


@st.composite
def steps(draw: st.DrawFn, nested: int = 2) -> Step:
    """One step; `nested` is how deep models may be inside of models."""
    name = draw(st.sampled_from(NAMES))
    if name == AGAIN:
        settings: Mapping[str, Any] = {"which": draw(st.integers(0, 7))}
    elif name == MODEL:
        settings = {"steps": draw(st.lists(steps(nested - 1), max_size=4 if nested else 0))}
    else:
        settings = draw(st.fixed_dictionaries(KINDS[name].settings))
    return Step(name, settings, draw(TAKES))


def recipes(length: int = 3) -> st.SearchStrategy[Recipe]:
    """Recipes of about 4 × `length` steps: in so many lists, because hypothesis likes each of them short."""
    parts = st.tuples(*[st.lists(steps(), max_size=8).map(tuple)] * length)
    inputs = st.lists(INPUTS, min_size=1, max_size=3).map(tuple)
    outputs = st.lists(st.integers(0, 7), max_size=2).map(tuple)
    return st.builds(Recipe, inputs, parts.map(lambda lists: sum(lists, ())), outputs)
