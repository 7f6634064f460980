"""Records as JSON on the way between the parent and its worker: jobs there, outcomes back, events in between."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from exporter.records import Job, Outcome

T = TypeVar("T")


@dataclass(frozen=True)
class StageEvent:
    """`state` is `start` or `end`; `seconds` and `peak_rss_bytes` come with the end."""

    stage: str
    state: str
    seconds: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class ProgressEvent:
    """How far a stage is."""

    stage: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class NoteEvent:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class MemoryEvent:
    """What the worker and its children hold now and held at most; made by the watching parent."""

    rss_bytes: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class LogEvent:
    """The end of what a finished worker and its libraries printed; made by the parent."""

    tail: str


Event = StageEvent | ProgressEvent | NoteEvent | MemoryEvent | LogEvent


def job_to_json(job: Job) -> str:
    return json.dumps(asdict(job))


def job_from_json(text: str) -> Job:
    """The inverse of `job_to_json`. Raises ValueError."""
    return restore(Job, json.loads(text))


def outcome_to_json(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome))


def outcome_from_json(text: str) -> Outcome:
    """The inverse of `outcome_to_json`. Raises ValueError."""
    return restore(Outcome, json.loads(text))


def event_to_json(event: StageEvent | ProgressEvent | NoteEvent) -> str:
    """One line without its end, as the parent expects it from the worker."""
    if isinstance(event, StageEvent):
        return json.dumps(asdict(event))
    if isinstance(event, NoteEvent):
        return json.dumps({"note": event.text})
    return json.dumps({"progress": {"stage": event.stage, "done": event.done_bytes, "total": event.total_bytes}})


def event_from_json(line: bytes) -> StageEvent | ProgressEvent | NoteEvent:
    """The inverse of `event_to_json`. Raises ValueError."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError(f"not an event: {line[:80]!r}")
    if "note" in data:
        return restore(NoteEvent, {"text": data["note"]})
    if "progress" in data and isinstance(progress := data["progress"], dict):
        renamed = {
            "stage": progress.get("stage"),
            "done_bytes": progress.get("done"),
            "total_bytes": progress.get("total"),
        }
        return restore(ProgressEvent, renamed)
    return restore(StageEvent, data)


def restore(kind: type[T], data: Any) -> T:
    """A record, with its tuples and inner records, from what JSON made of `dataclasses.asdict`.

    Raises ValueError when a field is missing, unknown or of another type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__}: expected an object, found {type(data).__name__}")
    hints = get_type_hints(kind)
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}  # type: ignore[arg-type]
    if wrong := (required - data.keys()) | (data.keys() - hints.keys()):
        raise ValueError(f"{kind.__name__}: missing or unknown fields: {', '.join(sorted(wrong))}")
    return kind(**{name: _value(hints[name], value, f"{kind.__name__}.{name}") for name, value in data.items()})


def _value(hint: Any, value: Any, place: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _optional(hint, value, place)
    if origin is tuple:
        return _tuple(hint, value, place)
    if origin is Mapping or hint is Mapping:
        return _mapping(hint, value, place)
    if isinstance(hint, type) and is_dataclass(hint):
        return restore(hint, value)
    return _plain(hint, value, place)


def _optional(hint: Any, value: Any, place: str) -> Any:
    """The only unions in the records are `X | None`."""
    if value is None:
        return None
    (inner,) = (choice for choice in get_args(hint) if choice is not type(None))
    return _value(inner, value, place)


def _tuple(hint: Any, value: Any, place: str) -> tuple[Any, ...]:
    """The only tuples in the records are `tuple[X, ...]`."""
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list, found {type(value).__name__}")
    return tuple(_value(get_args(hint)[0], item, place) for item in value)


def _mapping(hint: Any, value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object, found {type(value).__name__}")
    return {key: _value(get_args(hint)[1], item, place) for key, item in value.items()}


def _plain(hint: type, value: Any, place: str) -> Any:
    """A whole number is a float too; a boolean is not a number."""
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{place}: expected {hint.__name__}, found {type(value).__name__}")
    return hint(value)
