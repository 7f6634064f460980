"""The order in which a view shows its nodes. Any stretch of a topological order may become a block: no path leaves
it and comes back.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence

from exporter.formats.blocks import FAN_OUT
from exporter.formats.levels import ordered

Path = tuple[str, ...]


def drawing_order(reads: Sequence[Sequence[str]], made: Sequence[Sequence[str]], paths: Sequence[Path]) -> list[int]:
    """Places in a topological order that keeps together what is in one namespace, and otherwise goes depth first.

    Linear in nodes and reads, up to a logarithm and the depth of the namespaces.
    """
    maker = {name: place for place, names in enumerate(made) for name in names}
    sources = [sorted({maker[name] for name in names if name in maker} - {place}) for place, names in enumerate(reads)]
    rank = _depth_first(reads, maker, sources)
    return _Together(sources, rank, paths).order()


def _depth_first(reads: Sequence[Sequence[str]], maker: dict[str, int], sources: Sequence[Sequence[int]]) -> list[int]:
    """For each place its position in a walk from the results back, the longest branch first."""
    by_name = {
        str(place): [str(maker[name]) for name in names if name in maker and maker[name] != place]
        for place, names in enumerate(reads)
    }
    uses = dict.fromkeys(by_name, 0)
    for places in sources:
        for place in places:
            uses[str(place)] += 1
    # What goes to many places is made before the first of them, instead of in the middle of it.
    often = Counter(name for names in reads for name in names)
    first = dict.fromkeys(str(maker[name]) for name, count in often.items() if count > FAN_OUT and name in maker)
    rank = [0] * len(sources)
    for position, name in enumerate(ordered(by_name, uses, sorted(first, key=int))):
        rank[int(name)] = position
    return rank


class _Together:
    """Of the nodes whose inputs are there, the next is one of the same namespace as the last, as deep as can be.

    A namespace that waits for something outside of it is entered last, so that it need not be left again.
    """

    def __init__(self, sources: Sequence[Sequence[int]], rank: Sequence[int], paths: Sequence[Path]) -> None:
        self.sources, self.rank, self.paths = sources, rank, paths
        self.readers: list[list[int]] = [[] for _ in sources]
        # How many reads from outside each namespace still waits for.
        self.missing: Counter[Path] = Counter()
        for place, places in enumerate(sources):
            for source in places:
                self.readers[source].append(place)
                self.missing.update(self._only_in(place, source))
        self.ready: dict[Path, list[tuple[bool, int, int]]] = defaultdict(list)
        self.taken = [False] * len(sources)

    def order(self) -> list[int]:
        waiting = [len(places) for places in self.sources]
        for place, count in enumerate(waiting):
            if not count:
                self._announce(place)
        done: list[int] = []
        path: Path = ()
        while (following := self._next(path)) is not None:
            self.taken[following], path = True, self.paths[following]
            done.append(following)
            for reader in self.readers[following]:
                self._arrived(reader, following)
                waiting[reader] -= 1
                if not waiting[reader]:
                    self._announce(reader)
        return done

    def _only_in(self, place: int, other: int) -> list[Path]:
        """The namespaces that one node is in and another is not."""
        path, elsewhere = self.paths[place], self.paths[other]
        shared = 0
        while shared < min(len(path), len(elsewhere)) and path[shared] == elsewhere[shared]:
            shared += 1
        return [path[:depth] for depth in range(shared + 1, len(path) + 1)]

    def _announce(self, place: int) -> None:
        path = self.paths[place]
        for depth in range(len(path) + 1):
            waits = depth < len(path) and self.missing[path[: depth + 1]] > 0
            heapq.heappush(self.ready[path[:depth]], (waits, self.rank[place], place))

    def _arrived(self, place: int, source: int) -> None:
        for path in self._only_in(place, source):
            self.missing[path] -= 1
            if not self.missing[path]:
                for _, rank, ready in self.ready[path]:
                    heapq.heappush(self.ready[path[:-1]], (False, rank, ready))

    def _next(self, path: Path) -> int | None:
        for depth in range(len(path), -1, -1):
            heap = self.ready[path[:depth]]
            while heap:
                place = heapq.heappop(heap)[2]
                if not self.taken[place]:
                    return place
        return None
