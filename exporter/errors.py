"""The error tree: each error says what, where and why, what to try next, and which exit status it means.

Exit statuses (also in the README): 0 done, 1 a defect of this program, 2 wrong usage, 3 verification mismatch,
4 the source cannot be read, 5 refused because it would run code, 6 not supported, 7 the output cannot be written,
8 not enough memory or time, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar


class ExportError(Exception):
    """Something the user can act on.

    `what` happened, `where` (source, layer, op or file), `why`, and the `hint`: the next thing to try.
    """

    status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where, why, hint)
        self.what, self.where, self.why, self.hint = what, where, why, hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}: {self.why}" if self.why else head

    def as_record(self) -> dict[str, Any]:
        """The error as JSON-ready data, for the trip from a child process to its parent."""
        return {"type": type(self).__name__, "what": self.what, "where": self.where, "why": self.why, "hint": self.hint}


class UsageError(ExportError):
    """The command line asks for something that does not exist: an unknown name, format, option value."""

    status = 2


class MismatchError(ExportError):
    """The ONNX file and its source disagree; the files are left and the manifest is marked."""

    status = 3


class SourceError(ExportError):
    """The source is missing, is not a model, is truncated or is corrupt."""

    status = 4


class LostSourceError(SourceError):
    """The way to the source broke; it may hold the second time."""


class TrustError(ExportError):
    """Going on would run code that came with the model; refused without the user's consent."""

    status = 5


class UnsupportedError(ExportError):
    """The source is sound, but this version cannot convert it."""

    status = 6


class OutputError(ExportError):
    """An artifact could not be written: permissions, a full disk, another export in the same folder."""

    status = 7


class InUseError(OutputError):
    """Another export is at work in the same folder; it will end some time."""


class LostOutputError(OutputError):
    """The way to the output broke; it may hold the second time."""


class ResourceError(ExportError):
    """A process went above its memory limit, was killed, or took too long."""

    status = 8


class TransientError(ResourceError):
    """What stopped the job came from outside of it, and may not come a second time."""


class StoppedError(ExportError):
    """The user, or the system, asked to stop."""

    status = 130


class InternalError(ExportError):
    """A defect of this program: anything that was not foreseen. `--debug` shows the traceback."""

    status = 1


ERRORS: dict[str, type[ExportError]] = {
    error.__name__: error
    for error in (
        UsageError,
        MismatchError,
        SourceError,
        TrustError,
        UnsupportedError,
        OutputError,
        InUseError,
        ResourceError,
        TransientError,
        InternalError,
        LostSourceError,
        LostOutputError,
    )
}
# What lies in the program or the machine, and so may befall every model, comes first; then a result that is wrong; then
# what lies in one source.
GRAVEST_FIRST = (
    InternalError.status,
    OutputError.status,
    ResourceError.status,
    MismatchError.status,
    SourceError.status,
    UnsupportedError.status,
    TrustError.status,
    UsageError.status,
)
# What is worth a second try.
MAY_PASS = (TransientError.__name__, LostSourceError.__name__, LostOutputError.__name__)


def from_record(record: dict[str, str]) -> ExportError:
    """The inverse of `ExportError.as_record`; an unknown type becomes an `InternalError`."""
    fields = {key: record.get(key, "") for key in ("where", "why", "hint")}
    return ERRORS.get(record.get("type", ""), InternalError)(record.get("what", ""), **fields)


def gravest_status(errors: Iterable[ExportError | None]) -> int:
    """The exit status of several models together, 0 without an error: their order and their timing do not matter."""
    return min((error.status for error in errors if error is not None), key=GRAVEST_FIRST.index, default=0)
