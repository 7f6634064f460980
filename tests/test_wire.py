"""Records cross the process border unchanged, and nothing else does."""

from __future__ import annotations

import json

import pytest

from exporter import wire
from exporter.errors import InternalError
from exporter.records import Job, Outcome, OutputDifference, Stage, Verification, WrittenFile

JOB = Job(
    source="ResNet101",
    kind="application",
    name="resnet101",
    output_path="outputs/resnet101",
    formats=("onnx", "parquet"),
    fingerprint="f" * 64,
    source_digest="d" * 64,
    batch_size=None,
    input_shapes={"image": (1, None, 224, 3), "": (None,)},
    max_memory_bytes=4 * 2**30,
    layout_seconds=60,
)
OUTCOME = Outcome(
    name="ö/é",
    status="mismatch",
    output_path="outputs/x",
    weights="random (seed 0)",
    seconds=1.25,
    peak_rss_bytes=2**40,
    stages=(Stage("convert", 1.5, 7), Stage("weights", 0.0, 0)),
    files=(WrittenFile("model.onnx", 1, "a" * 64),),
    verification=Verification("mismatch", "", None, 2.0, 3, (OutputDifference("y", (1, 10), 0.1, float("inf"), 1e-5),)),
    notes=("one", "two"),
    error=InternalError("what", hint="this").as_record(),
)


def test_a_job_comes_back_equal() -> None:
    restored = wire.job_from_json(wire.job_to_json(JOB))
    assert restored == JOB
    assert type(restored.input_shapes["image"]) is tuple
    assert type(restored.formats) is tuple
    assert type(restored.layout_seconds) is float


@pytest.mark.parametrize("outcome", [OUTCOME, Outcome("bare", "done")])
def test_an_outcome_comes_back_equal(outcome: Outcome) -> None:
    restored = wire.outcome_from_json(wire.outcome_to_json(outcome))
    assert restored == outcome
    assert type(restored.stages) is tuple


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (wire.NoteEvent("hello"), '{"note": "hello"}'),
        (wire.ProgressEvent("weights", 5, 10), '{"progress": {"stage": "weights", "done": 5, "total": 10}}'),
        (wire.StageEvent("convert", "start"), '{"stage": "convert", "state": "start"}'),
        (
            wire.StageEvent("convert", "end", 2.5, 7),
            '{"stage": "convert", "state": "end", "seconds": 2.5, "peak_rss_bytes": 7}',
        ),
    ],
)
def test_events_are_lines_of_json(event: wire.StageEvent | wire.NoteEvent | wire.ProgressEvent, line: str) -> None:
    assert wire.event_from_json(line.encode()) == event
    assert wire.event_from_json(wire.event_to_json(event).encode()) == event


@pytest.mark.parametrize("line", [b"", b"[]", b"chatter", b"{}", b'{"note": 1}', b'{"progress": 7}', b'{"stage": "x"}'])
def test_what_is_no_event_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.event_from_json(line)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": 3}, "Outcome.status: expected str, found int"),
        ({"seconds": True}, "expected float, found bool"),
        ({"peak_rss_bytes": 1.5}, "expected int, found float"),
        ({"stages": "convert"}, "expected a list"),
        ({"stages": [{"name": "x"}]}, "missing or unknown fields: peak_rss_bytes, seconds"),
        ({"error": []}, "expected an object"),
        ({"surprise": 1}, "missing or unknown fields: surprise"),
    ],
)
def test_a_record_of_another_shape_is_refused(change: dict[str, object], complaint: str) -> None:
    data = json.loads(wire.outcome_to_json(OUTCOME)) | change
    with pytest.raises(ValueError, match=complaint):
        wire.outcome_from_json(json.dumps(data))
