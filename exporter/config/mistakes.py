"""What is wrong with files of settings: all of it, each with its file, its line and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from exporter.errors import UsageError

# A thousand models may all have the same mistake.
SHOWN = 50


@dataclass(frozen=True, order=True)
class Place:
    """Where something is said. `path` is as the user named the file, `line` counts from 1."""

    path: str
    line: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """`what` is wrong at `place`; `hint` is what to write instead, empty where nothing comes to mind."""

    place: Place
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class Mistakes:
    """Collects them, so that one report has all."""

    def __init__(self) -> None:
        self._found: dict[Mistake, None] = {}

    def add(self, place: Place, what: str, hint: str = "") -> None:
        self._found[Mistake(place, what, hint)] = None

    def check(self) -> None:
        """Raises UsageError with all of them, in the order of files and lines."""
        if not self._found:
            return
        order = {path: number for number, path in enumerate(dict.fromkeys(each.place.path for each in self._found))}
        ordered = sorted(self._found, key=lambda each: (order[each.place.path], each.place.line))
        lines = [f"\n  {each}" for each in ordered[:SHOWN]]
        if len(ordered) > SHOWN:
            lines.append(f"\n  … and {len(ordered) - SHOWN} more")
        count = "1 mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
        raise UsageError(f"{count} in {', '.join(order)}, and nothing has been started:{''.join(lines)}")


def did_you_mean(word: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """`did you mean …?`, or what there is where nothing comes close; `elsewhere` are words of other tables."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=1) or difflib.get_close_matches(word, list(elsewhere), n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
