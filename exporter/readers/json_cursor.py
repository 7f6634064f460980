"""JSON text read piece by piece: the elements of a long list need not be in memory together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

SPACE = re.compile(r"[ \t\n\r]*")
DECODER = json.JSONDecoder()


class JsonCursor:
    """A place in a JSON text. Its methods raise ValueError where the text is not JSON."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        space = SPACE.match(self.text, self.place)
        self.place = space.end() if space else self.place
        return self.text[self.place : self.place + 1]

    def value(self) -> Any:
        """The value that begins here, whole."""
        self.peek()
        value, self.place = DECODER.raw_decode(self.text, self.place)
        return value

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; after each the caller consumes its value."""
        self._expect("{")
        if self.peek() == "}":
            self.place += 1
            return
        while True:
            key = self.value()
            self._expect(":")
            yield key
            if self._more("}"):
                return

    def elements(self) -> Iterator[Any]:
        """The elements of the list that begins here, each whole."""
        self._expect("[")
        if self.peek() == "]":
            self.place += 1
            return
        while True:
            yield self.value()
            if self._more("]"):
                return

    def _more(self, end: str) -> bool:
        """Past the `,` or the end; whether it was the end."""
        found = self.peek()
        if found not in (",", end):
            raise ValueError(f"no ',' or {end!r} at character {self.place}")
        self.place += 1
        return found == end

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"no {character!r} at character {self.place}")
        self.place += 1
