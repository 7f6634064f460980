"""Jobs whose source or output is elsewhere, through the command line: what is planned, fetched, uploaded, told."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from stores import BUCKET, S3, s3_server, web_server

from exporter import cli, files, plan, private_folder, resuming, wire, worker
from exporter.batch.execution import execute
from exporter.records import Job, Outcome
from exporter.reporting import Reporter
from exporter.storage import fetching, objects

SOURCE = f"s3://{BUCKET}/models/relu.onnx"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3, pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "CLIENT_ATTEMPTS", 1)
        patch.setattr(objects, "CONNECTION_ATTEMPTS", 1)
        objects._filesystem.cache_clear()
        yield s3
        objects._filesystem.cache_clear()


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """With a model in it; nothing is left of temporary files."""
    server.clear()
    server.put("models/relu.onnx", relu().SerializeToString())
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    yield server
    assert list(folder.glob(f"{private_folder.PREFIX}*")) == []


def relu(name: str = "Relu") -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 2]) for each in "xy"]
    return helper.make_model(helper.make_graph([helper.make_node(name, ["x"], ["y"])], "g", ends[:1], ends[1:]))


def with_data(name: str) -> onnx.ModelProto:
    """Its weights are in a file beside it."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], b"\0" * 8, raw=True)
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 2]) for each in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    onnx.external_data_helper.set_external_data(graph.initializer[0], name, 0, 8)
    graph.initializer[0].ClearField("raw_data")
    graph.initializer[0].data_location = TensorProto.EXTERNAL
    return helper.make_model(graph)


def run_here(job: Job, **limits: Any) -> Outcome:
    """What the worker does, in this process; these sources need no framework."""
    return worker.carry_out(job, Reporter(io.StringIO()))


def run(job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome:
    return execute(job, begin=lambda: None, watch=watch, run=run_here, **limits)


def export(*words: str) -> int:
    return cli.main([*words, "-q"], run=run)


def planned(source: str, output: str = "outputs", **options: Any) -> Job:
    (job,) = plan.plan([source], plan.ExportOptions(formats=("parquet",), output=output, **options))
    assert isinstance(job, Job), job.error
    return job


def receipt(s3: S3, name: str = "relu") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(s3.content(f"runs/{name}/manifest.json"))
    return found


@pytest.mark.slow
def test_from_a_store_into_a_store_and_again(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    words = [SOURCE, "-o", s3.address, "--to", "parquet,dot"]
    assert export(*words) == 0
    assert [asked.what for asked in s3.asked if asked.path.endswith("manifest.json")][-1] == "PUT manifest.json"
    found = receipt(s3)
    assert found["source"] == found["arguments"]["source"] == SOURCE
    assert sorted(s3.names("runs/")) == sorted(
        f"runs/relu/{name}" for name in ["manifest.json", *(record["name"] for record in found["files"])]
    )
    local = planned(str(Path("relu.onnx").write_bytes(s3.content("models/relu.onnx")) and "relu.onnx"))
    assert found["source_digest"] == local.source_digest, "of the content, wherever it comes from"
    s3.asked.clear()
    assert export(*words) == 0
    assert [asked.what for asked in s3.asked] == ["HEAD relu.onnx", "GET manifest.json", "GET zoo list-type"]
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_what_changes_is_exported_again(s3: S3) -> None:
    job = planned(SOURCE, s3.address)
    assert not resuming.is_done(job)
    assert export(SOURCE, "-o", s3.address, "--to", "parquet") == 0
    assert resuming.is_done(job)
    assert resuming.skipped(job).status == "skipped"
    s3.put("models/relu.onnx", relu("Sigmoid").SerializeToString())
    assert not resuming.is_done(planned(SOURCE, s3.address))
    assert not resuming.is_done(planned(SOURCE, s3.address, stats=True))
    s3.client.delete_object(Bucket=BUCKET, Key="runs/relu/layers.parquet")
    assert not resuming.is_done(job)


class Overtaken:
    """Right after the first look somebody else does the same job."""

    skipped = staticmethod(resuming.skipped)

    def __init__(self) -> None:
        self.other: Outcome | None = None

    def is_done(self, job: Job) -> bool:
        found = resuming.is_done(job)
        self.other = self.other or run(job, watch=lambda event: None)
        return found


@pytest.mark.parametrize("output", ["outputs", f"s3://{BUCKET}/runs"])
def test_what_another_batch_did_in_between_is_not_done_again(output: str, s3: S3) -> None:
    job, receipts = planned(SOURCE, output), Overtaken()
    outcome = execute(job, begin=lambda: None, watch=lambda event: None, run=run_here, receipts=receipts)
    assert receipts.other is not None
    assert receipts.other.status == "done"
    assert outcome.status == "skipped"


@pytest.mark.slow
def test_the_catalogue_shows_no_secrets(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "relu.onnx").write_bytes(relu().SerializeToString())
    with web_server(tmp_path / "site") as (address, asked):
        signed = address.replace("http://", "http://user:passwort@") + "/relu.onnx?X-Signature=geheim"
        assert export(signed, "--to", "parquet,dot,json") == 0
        shown = f"{address}/relu.onnx"
    assert asked == ["HEAD /relu.onnx?X-Signature=geheim", *asked[1:]]
    assert pq.read_table("outputs/relu/models.parquet").column("source").to_pylist() == [shown]
    for path in Path("outputs/relu").iterdir():
        content = path.read_bytes()
        assert b"geheim" not in content
        assert b"passwort" not in content
        assert str(tmp_path).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("place", ["outputs", f"s3://{BUCKET}/runs"])
def test_a_source_that_is_no_model(place: str, s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    s3.put("models/notes.txt", b"no model")
    assert export(f"s3://{BUCKET}/models/notes.txt", "-o", place, "--to", "parquet") == 4
    said = capsys.readouterr().err
    assert f"s3://{BUCKET}/models/notes.txt: is not a model: it is a text file" in said
    assert s3.names("runs/") == []
    assert not list(Path().glob("outputs/*"))


@pytest.mark.slow
def test_a_source_that_is_cut_off(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker complains of it, by the address."""
    s3.put("models/relu.onnx", relu().SerializeToString()[:-20])
    assert export(SOURCE, "--source-kind", "onnx_file", "--to", "parquet") == 4
    said = capsys.readouterr().err
    assert SOURCE in said
    assert "/tmp" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        ((f"s3://{BUCKET}/models/missing.onnx",), 4, "nothing is there"),
        (("s3://no-such-bucket/relu.onnx",), 4, "bucket does not exist"),
        ((SOURCE, "-o", "s3://no-such-bucket/runs"), 7, "bucket does not exist"),
        ((SOURCE, "-o", "https://host/runs"), 2, "web servers take no exports"),
        ((SOURCE, "-o", "ftp://host/runs"), 2, "unknown kind of address"),
        (("ftp://host/relu.onnx",), 2, "unknown kind of address"),
        ((SOURCE, "--weights", "imagenet"), 2, "--weights"),
        ((SOURCE, "--to", "onnx"), 2, "cannot be converted to ONNX"),
    ],
)
def test_errors_say_what_and_where(
    words: tuple[str, ...], status: int, what: str, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*words) == status
    said = capsys.readouterr().err
    assert what in said
    assert "try:" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_formats_that_nobody_chose_are_left_out(s3: S3) -> None:
    assert export(SOURCE) == 0
    assert Path("outputs/relu/layers.parquet").exists()
    assert not Path("outputs/relu/model.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_files_beside_the_source_come_along(scheme: str, s3: S3, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "data").mkdir(parents=True)
    (site / "added.onnx").write_bytes(with_data("data/weights.bin").SerializeToString())
    (site / "data" / "weights.bin").write_bytes(b"\0\0\0\1" * 2)
    s3.put_folder(site, "models")
    with web_server(site) as (address, _):
        place = address if scheme == "http" else f"s3://{BUCKET}/models"
        assert export(f"{place}/added.onnx", "--to", "parquet", "--stats") == 0
    assert files.read_manifest(Path("outputs/added"))["notes"] == []  # type: ignore[index]
    assert pq.read_table("outputs/added/tensors.parquet").column("zeros").to_pylist() == [0]


@pytest.mark.slow
def test_data_files_that_lead_out_of_the_folder_are_not_asked_for(s3: S3) -> None:
    s3.put("models/added.onnx", with_data("../secret.bin").SerializeToString())
    s3.put("secret.bin", b"\0" * 8)
    assert export(f"s3://{BUCKET}/models/added.onnx", "--to", "parquet", "--stats") == 4
    assert not any("secret" in asked.path for asked in s3.asked)


@pytest.mark.slow
def test_a_safetensors_index_brings_its_shards(s3: S3) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    s3.put("models/one.safetensors", len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    index = {"metadata": {}, "weight_map": {"w": "one.safetensors"}}
    s3.put("models/all.safetensors.index.json", json.dumps(index).encode())
    assert export(f"s3://{BUCKET}/models/all.safetensors.index.json", "--to", "parquet") == 0
    (folder,) = Path("outputs").iterdir()
    assert pq.read_table(folder / "tensors.parquet").num_rows == 1
    s3.client.delete_object(Bucket=BUCKET, Key="models/one.safetensors")
    assert export(f"s3://{BUCKET}/models/all.safetensors.index.json", "--to", "parquet", "--force") == 4


@pytest.mark.slow
def test_a_checkpoint_brings_its_data(s3: S3) -> None:
    """Its index does not name them: they are found beside it, and nothing else is fetched."""
    for name in ("net.index", "net.data-00000-of-00001", "net2.data-00000-of-00001", "net.d/deep"):
        s3.put(f"models/{name}", b"x")
    assert fetching.names_like(f"s3://{BUCKET}/models/net.index", "net.") == [
        "net.d",
        "net.data-00000-of-00001",
        "net.index",
    ]


@pytest.mark.slow
def test_a_job_that_is_stopped_while_it_is_fetched(s3: S3) -> None:
    stop = threading.Event()
    stop.set()
    outcome = run(planned(SOURCE, s3.address), watch=lambda event: None, stop=stop)
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["why"]) == ("TransientError", "during stage fetch")
    assert s3.names("runs/") == []


@pytest.mark.slow
def test_a_job_that_takes_too_long(s3: S3) -> None:
    outcome = run(planned(SOURCE, s3.address), watch=lambda event: None, timeout_seconds=1e-9)
    assert outcome.error is not None
    assert "took longer than --timeout" in outcome.error["what"]
    assert s3.names("runs/") == []


@pytest.mark.slow
def test_a_job_that_fails_uploads_nothing(s3: S3) -> None:
    def fail(job: Job, **limits: Any) -> Outcome:
        error = {"type": "SourceError", "what": "is wrong", "where": job.source, "why": "", "hint": ""}
        return Outcome(job.name, "failed", job.output_path, error=error, notes=(f"about {job.output_path}",))

    outcome = execute(planned(SOURCE, s3.address), begin=lambda: None, watch=lambda event: None, run=fail)
    assert outcome.error is not None
    assert outcome.error["where"] == SOURCE
    assert (outcome.output_path, outcome.notes) == (f"{s3.address}/relu", (f"about {s3.address}/relu",))
    assert s3.names("runs/") == []


@pytest.mark.slow
def test_stages_of_the_way_are_told(s3: S3) -> None:
    told: list[wire.Event] = []
    outcome = run(planned(SOURCE, s3.address), watch=told.append)
    names = [stage.name for stage in outcome.stages]
    assert (names[0], names[-1], outcome.status) == ("fetch", "upload", "done")
    stages = [(event.stage, event.state) for event in told if isinstance(event, wire.StageEvent)]
    assert stages == [(name, state) for name in ("fetch", "upload") for state in ("start", "end")]
    assert {event.stage for event in told if isinstance(event, wire.ProgressEvent)} == {"fetch", "upload"}


@pytest.mark.slow
def test_a_job_survives_its_way_to_another_machine(s3: S3) -> None:
    job = planned(SOURCE, s3.address)
    assert wire.job_from_json(wire.job_to_json(job)) == job
    assert job.origin is not None
    assert job.origin.nbytes == len(s3.content("models/relu.onnx"))
    assert replace(job, origin=None).fingerprint == job.fingerprint


@pytest.mark.slow
def test_file_addresses_are_paths(s3: S3, tmp_path: Path) -> None:
    Path("relu.onnx").write_bytes(relu().SerializeToString())
    source, output = (tmp_path / "relu.onnx").as_uri(), (tmp_path / "zoo").as_uri()
    assert export(source, "-o", output, "--to", "parquet") == 0
    assert files.read_manifest(tmp_path / "zoo" / "relu")["source"] == "relu.onnx"  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("command", [("summary",), ("inspect",), ("inspect", "--format", "csv"), ("diff",)])
def test_commands_that_look_at_exports_take_addresses(
    command: tuple[str, ...], s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(SOURCE, "-o", s3.address, "--to", "parquet,dot") == 0
    s3.asked.clear()
    places = [f"{s3.address}/relu"] + ([SOURCE] if command == ("diff",) else [])
    capsys.readouterr()
    assert cli.main([*command, *places], run=run) == 0
    assert ("equal" if command == ("diff",) else "Relu") in capsys.readouterr().out
    assert not any(asked.path.endswith(".dot") for asked in s3.asked), "only what is needed"


@pytest.mark.slow
def test_what_is_shown_of_an_export_there(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("exporter.view.server.serve", lambda what, **options: shown.extend(map(read, what)))

    def read(what: Any) -> bytes:
        return bytes(Path(what.path).read_bytes())

    manifest = {"files": [{"name": name, "nbytes": 1, "sha256": ""} for name in ("model.onnx", "model.onnx.data")]}
    model = relu().SerializeToString()
    manifest["files"][0]["nbytes"] = len(model)
    for name, content in [("model.onnx", model), ("model.onnx.data", b"1"), ("manifest.json", json.dumps(manifest))]:
        s3.put(f"runs/shown/{name}", content if isinstance(content, bytes) else content.encode())
    assert cli.main(["view", f"{s3.address}/shown", "--no-browser"]) == 0
    assert b"Relu" in shown[0]
    assert not any(asked.path.endswith(".data") for asked in s3.asked)
    assert cli.main(["view", SOURCE, "--full", "--no-browser"]) == 0
    assert shown[1] == model


@pytest.mark.slow
def test_a_batch_leaves_its_report_in_the_store(s3: S3) -> None:
    Path("other.onnx").write_bytes(relu("Sigmoid").SerializeToString())
    words = ["batch", SOURCE, "other.onnx", "-o", s3.address, "--to", "parquet", "-q"]
    assert cli.main(words, run=run_here) == 0
    assert {"runs/report.html", "runs/report.md", "runs/batch.parquet"} <= set(s3.names("runs/"))
    s3.asked.clear()
    assert cli.main(words, run=run_here) == 0
    reads = [asked.what for asked in s3.asked if asked.method != "PUT"]
    assert sorted(reads) == ["GET manifest.json"] * 2 + ["GET zoo list-type"] * 2 + ["HEAD relu.onnx"]
    assert not any(Path().glob("s3*"))
