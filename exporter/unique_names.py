"""Names that are given out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Names:
    """Hands out each name once: `a`, then `a_1`, `a_2`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self._suffixes: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        wanted = name
        while name in self.taken:
            self._suffixes[wanted] += 1
            name = f"{wanted}_{self._suffixes[wanted]}"
        self.taken.add(name)
        return name
