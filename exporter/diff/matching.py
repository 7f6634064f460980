"""Which layer of one model is which layer of another.

Names that somebody gave come first. What is left is matched by structure: each layer gets a colour that stands for its
class, settings and shapes, and then, round after round, for those of the layers around it (Weisfeiler and Leman 1968,
as in Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 2011). Layers with equal colours are paired from the
widest neighbourhood to the narrowest, between pairs that are known already, so that the execution order decides between
equals. All steps are linear in layers and edges, or n log n.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from itertools import accumulate

from exporter.diff.tables import Row, Tables

ROUNDS = 4
# As `keras.src.utils.naming.to_snake_case` does it: before a capital with small letters, and after a small letter.
WORD_BREAK = re.compile(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])")

Token = Callable[[int, Row], Hashable]


def match(before: Tables, after: Tables) -> dict[str, str]:
    """The key of a layer in `before` → its key in `after`; those without a partner are left out.

    Level by level: the layers inside of two nested models are compared when these are a pair. What is then left on any
    level is compared across levels, because a model can be put into another, or taken out. Last come pairs that have
    nothing but class and place in common.
    """
    levels = Levels(before, after)
    levels.walk([(None, None)], by_class=False)
    levels.across()
    levels.walk([(None, None), *levels.pairs.items()], by_class=True)
    return levels.pairs


class Levels:
    """The pairs of all levels while they are found."""

    def __init__(self, before: Tables, after: Tables) -> None:
        self.before, self.after = before, after
        self.colours = Colours(before, after)
        self.pairs: dict[str, str] = {}
        self.taken: set[str] = set()

    def walk(self, waiting: Sequence[tuple[str | None, str | None]], *, by_class: bool) -> None:
        """Pair what is inside of these pairs of models, and inside of the pairs that this finds."""
        left = list(waiting)
        while left:
            old, new = left.pop()
            levels = (self.before.children.get(old, []), self.after.children.get(new, []))
            if all(self._free(*levels)):
                left += self._add(Matching(self.colours, *levels, self.pairs, self.taken).found(by_class=by_class))

    def across(self) -> None:
        free = self._free(self.before.layers, self.after.layers)
        if all(free):
            self._add(Matching(self.colours, *free, {}, set(), across=True).found(by_class=False))

    def _add(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """The pairs that are new."""
        new = [(old, new) for old, new in pairs.items() if old not in self.pairs]
        self.pairs.update(new)
        self.taken.update(key for _, key in new)
        return new

    def _free(self, before: Sequence[Row], after: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        return (
            [row for row in before if row["layer"] not in self.pairs],
            [row for row in after if row["layer"] not in self.taken],
        )


def is_automatic(name: str, class_name: str) -> bool:
    """Whether Keras numbers such a name itself: `conv2d_7` of a Conv2D, `functional` of any model."""
    words = re.sub(r"_\d+$", "", name)
    return words in (snake_case(class_name), "functional", "sequential", "model", "input_layer", "input")


def snake_case(class_name: str) -> str:
    """`GlobalAveragePooling2D` → `global_average_pooling2d`, as Keras names layers."""
    return WORD_BREAK.sub("_", class_name).lower()


class Colours:
    """Colours of the layers of both models, as small whole numbers that are equal where the structure is."""

    def __init__(self, before: Tables, after: Tables) -> None:
        self.numbers: dict[Hashable, int] = {}
        self.plain: dict[int, dict[str, int]] = {}
        self.rounds: dict[int, list[dict[str, int]]] = {}
        # What a layer takes, in the order of its inputs, and what takes it; both by the layer's key.
        self.around: dict[int, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}
        for side, tables in enumerate((before, after)):
            self.around[side] = _neighbours(tables)
            self.plain[side] = {row["layer"]: self.number(_settings(tables, row)) for row in tables.layers}
            self.rounds[side] = list(self._refined(tables, side))

    def number(self, key: Hashable) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def _refined(self, tables: Tables, side: int) -> Iterator[dict[str, int]]:
        """Colours of radius 0, 1, …, ROUNDS."""
        plain, (sources, readers) = self.plain[side], self.around[side]
        colour = {row["layer"]: self.number((plain[row["layer"]], *_shapes(tables, row))) for row in tables.layers}
        yield colour
        for _ in range(ROUNDS):
            colour = {
                layer: self.number(
                    (
                        own,
                        tuple(colour.get(source, -1) for source in sources.get(layer, ())),
                        tuple(sorted(colour.get(reader, -1) for reader in readers.get(layer, ()))),
                    )
                )
                for layer, own in colour.items()
            }
            yield colour


def _neighbours(tables: Tables) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    readers: dict[str, list[str]] = defaultdict(list)
    for edge in tables.edges:
        readers[edge["source"]].append(edge["target"])
    return {key: [edge["source"] for edge in edges] for key, edges in tables.edges_into.items()}, readers


def _settings(tables: Tables, row: Row) -> Hashable:
    return row["class"], repr(sorted(tables.settings[row["layer"]].items()))


def _shapes(tables: Tables, row: Row) -> Iterator[str]:
    """Shapes and dtypes of inputs, outputs and weights."""
    for column in ("input_shapes", "output_shapes", "input_dtypes", "output_dtypes"):
        yield repr(row[column])
    yield repr([(tensor["shape"], tensor["dtype"]) for tensor in tables.tensors_of.get(row["layer"], ())])


class Matching:
    """Pairs the layers of two levels, some of which are `known`; or, `across` levels, those that are left on all."""

    def __init__(
        self,
        colours: Colours,
        before: Sequence[Row],
        after: Sequence[Row],
        known: Mapping[str, str],
        taken: Set[str],
        *,
        across: bool = False,
    ) -> None:
        self.colours, self.across = colours, across
        self.rows = (before, after)
        self.place = [{row["layer"]: place for place, row in enumerate(rows)} for rows in self.rows]
        self.pairs = {key: known[key] for key in self.place[0] if known.get(key) in self.place[1]}
        # Layers of these levels that have a partner; it may be on another level.
        self.used = ({key for key in self.place[0] if key in known}, {key for key in self.place[1] if key in taken})
        self.gaps = [[0] * len(rows) for rows in self.rows]

    def found(self, *, by_class: bool) -> dict[str, str]:
        self._by_name()
        self._by_structure()
        if by_class:
            self._pair(lambda side, row: row["class"], between=True)
        return self.pairs

    def _by_name(self) -> None:
        """Names that somebody gave."""

        def given(side: int, row: Row) -> Hashable:
            return None if is_automatic(row["name"], row["class"]) else (row["name"], self.across and row["class"])

        self._pair(given, unique=True)

    def _by_structure(self) -> None:
        self._pair(self._colour(ROUNDS), unique=True)
        self._spread()
        for radius in reversed(range(ROUNDS + 1)):
            self._pair(self._colour(radius), between=True)
            self._spread()
        self._pair(lambda side, row: self.colours.plain[side][row["layer"]], between=True)
        self._pair(self._colour(0), unique=True)

    def _colour(self, radius: int) -> Token:
        return lambda side, row: self.colours.rounds[side][radius][row["layer"]]

    def _pair(self, token: Token, *, unique: bool = False, between: bool = False) -> None:
        """Pair what is free on both sides and has equal tokens, the n-th with the n-th, or only unique tokens.

        With `between`, both must also lie between the same two pairs in execution order. A token of None is not used.
        """
        if between:
            self._find_gaps()
        free = [self._free(side, token, between) for side in (0, 1)]
        for word, old in free[0].items():
            new = free[1].get(word, [])
            if not unique or len(old) == len(new) == 1:
                for pair in zip(old, new, strict=False):
                    self._add(*pair)

    def _add(self, old: str, new: str) -> None:
        self.pairs[old] = new
        self.used[0].add(old)
        self.used[1].add(new)

    def _free(self, side: int, token: Token, between: bool) -> dict[Hashable, list[str]]:
        found: dict[Hashable, list[str]] = defaultdict(list)
        for place, row in enumerate(self.rows[side]):
            if row["layer"] not in self.used[side] and (word := token(side, row)) is not None:
                found[word, self.gaps[side][place] if between else 0].append(row["layer"])
        return found

    def _spread(self) -> None:
        """Pair equal layers that take the same layers' outputs, in order, and then those that feed the same layers.

        It keeps the layers of a block together where blocks repeat.
        """
        for direction, rows in ((0, self.rows[0]), (1, self.rows[0][::-1])):
            near = [self.colours.around[side][direction] for side in (0, 1)]
            waiting: dict[Hashable, list[str]] = defaultdict(list)
            for row in self.rows[1][::-1]:
                if row["layer"] not in self.used[1] and (keys := near[1].get(row["layer"])):
                    waiting[self._colour(0)(1, row), tuple(keys)].append(row["layer"])
            for row in rows:
                images = tuple(self.pairs.get(key) for key in near[0].get(row["layer"], ()))
                if row["layer"] in self.used[0] or not images:
                    continue
                if found := waiting.get((self._colour(0)(0, row), images)):
                    self._add(row["layer"], found.pop())

    def _find_gaps(self) -> None:
        """For each layer, how many pairs come before it, of those pairs that have one order in both models."""
        places = sorted((self.place[0][old], self.place[1][new]) for old, new in self.pairs.items())
        anchors = [places[number] for number in increasing([new for _, new in places])]
        for side, rows in enumerate(self.rows):
            counts = Counter(anchor[side] for anchor in anchors)
            self.gaps[side] = list(accumulate(counts[place] for place in range(len(rows))))


def increasing(values: Sequence[int]) -> list[int]:
    """Positions of a longest increasing subsequence, by patience sorting in n log n."""
    tails: list[int] = []
    ends: list[int] = []
    previous = [-1] * len(values)
    for place, value in enumerate(values):
        at = bisect_left(tails, value)
        previous[place] = ends[at - 1] if at else -1
        tails[at : at + 1] = [value]
        ends[at : at + 1] = [place]
    found = []
    place = ends[-1] if ends else -1
    while place >= 0:
        found.append(place)
        place = previous[place]
    return found[::-1]
