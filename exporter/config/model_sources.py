"""What the `source` of a model stands for: names, paths beside the file, URLs, and patterns of paths."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from exporter.config.keys import beside
from exporter.config.mistakes import Mistakes, Place
from exporter.errors import ExportError
from exporter.sources import detection
from exporter.sources.detection.applications import application_names, normalise
from exporter.sources.detection.python_sources import FACTORY_NAME

WILDCARD = re.compile(r"[*?\[]")


def expand(texts: Sequence[tuple[str, Place]], folder: str, mistakes: Mistakes) -> list[str]:
    """The sources that are meant by the texts of a file in `folder`, in order."""
    found: list[str] = []
    for text, place in texts:
        path = beside(text, folder)
        if WILDCARD.search(text) and "://" not in text and not os.path.exists(path):
            names = glob.glob(os.path.expanduser(text), root_dir=folder or None, recursive=True)
            if not names:
                mistakes.add(place, f"nothing matches {text}", _nearest_folder(path))
            found += [beside(name, folder) for name in sorted(names)]
        else:
            found.append(_single(text, path, place, mistakes))
    return found


def _single(text: str, path: str, place: Place, mistakes: Mistakes) -> str:
    """A source that must be there; one that cannot be read as a model is for the export to say."""
    if "://" in text:
        return text
    if is_application(text) and not os.path.isfile(path):
        return text
    if factory := FACTORY_NAME.fullmatch(text):
        return path if factory["place"].endswith(".py") else text
    if not os.path.exists(path):
        # The common start of the names of a checkpoint's files is no file either, and no mistake.
        try:
            detection.detect(path if detection.looks_like_path(text) else text)
        except ExportError as error:
            meant = error.hint if os.path.exists(error.hint) or is_application(error.hint.split()[0]) else ""
            mistakes.add(place, f"{text} {error.what}: {error.why}", f"did you mean {meant}?" if meant else "")
    return path


def is_application(text: str) -> bool:
    return normalise(text) in application_names()


def _nearest_folder(pattern: str) -> str:
    """Why a pattern matches nothing, where it is a folder that is missing."""
    folder = os.path.dirname(WILDCARD.split(pattern)[0])
    return f"there is no folder {folder}" if folder and not os.path.isdir(folder) else ""


class Exclusion:
    """Patterns for what is left out; each is compared with the path beside the file, the file's name, the model's name.

    One without wildcards names something that must be there.
    """

    def __init__(self, patterns: Sequence[tuple[str, Place]], folder: str) -> None:
        self.patterns, self.folder = list(patterns), folder
        self._used: set[str] = set()
        self._seen: set[str] = set()

    def keeps(self, source: str) -> bool:
        self._seen.add(source)
        matching = {pattern for pattern, _ in self.patterns if self._matches(source, pattern)}
        self._used |= matching
        return not matching

    def check(self, mistakes: Mistakes) -> None:
        """To be asked when all sources have been seen."""
        for pattern, place in self.patterns:
            if pattern not in self._used and not WILDCARD.search(pattern):
                near = difflib.get_close_matches(pattern, self._seen, n=1)
                mistakes.add(
                    place, f"exclude: {pattern} is none of the models", f"did you mean {near[0]}?" if near else ""
                )

    def _matches(self, source: str, pattern: str) -> bool:
        if is_application(source):
            return fnmatchcase(normalise(source), normalise(pattern))
        inside = os.path.normpath(source.removeprefix(os.path.join(self.folder, "")))
        return any(fnmatchcase(name, pattern.removeprefix("./")) for name in (inside, os.path.basename(source)))
