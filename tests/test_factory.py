"""Python factories and custom objects: what their code makes, against Keras; and what is refused or goes wrong."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from exporting import export_here, initializers, job_for, manifest, run_here
from sampling import sampled

from exporter import cli
from exporter.errors import SourceError, TrustError, UnsupportedError, UsageError
from exporter.plan import ExportOptions, Refusal, plan
from exporter.records import Outcome
from exporter.sources.detection.python_sources import argument_texts, parse_arguments
from exporter.sources.digest import source_digest
from exporter.sources.keras_models import factory

CODE = """
import sys
from pathlib import Path
import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent


def plain():
    print("printed by the factory")
    inputs = keras.Input((6,), name="features")
    return keras.Model(inputs, layers.Dense(3, name="out")(layers.Dense(5, name="hidden")(inputs)))


def loading():
    model = plain()
    model.load_weights(HERE / "plain.weights.h5")
    return model


def mixed():
    body = keras.models.load_model(HERE / "plain.keras")
    inputs = keras.Input((6,), name="features")
    return keras.Model(inputs, layers.Dense(2, name="fresh")(body(inputs))), "a tokenizer"


def assigning():
    model = plain()
    model.set_weights([np.linspace(-1, 1, np.prod(w.shape)).reshape(w.shape) for w in model.weights])
    return model


class Ramp(layers.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.ramp = keras.Variable(np.arange(6.0), dtype="float32", name="ramp")

    def call(self, inputs):
        return inputs + self.ramp


def compiled():
    inputs = keras.Input((6,), name="features")
    model = keras.Model(inputs, layers.Dense(3, name="out")(Ramp(name="ramp")(inputs)))
    model.compile(keras.optimizers.Adam(1e-3), "mse", metrics=["mae"])
    return model


class Twice(keras.Model):
    def __init__(self):
        super().__init__(name="twice")
        self.first = layers.Dense(4, activation="relu")
        self.second = layers.Dense(2)

    def call(self, inputs):
        return self.second(self.first(inputs))


def subclassed():
    return Twice()


def called():
    model = Twice()
    model(np.zeros((1, 6), "float32"))
    return model


class Pair(keras.Model):
    def __init__(self):
        super().__init__(name="pair")
        self.table, self.out = layers.Embedding(10, 4), layers.Dense(2)

    def call(self, tokens, mask):
        return self.out(self.table(tokens) * keras.ops.cast(mask, "float32")[..., None])


def pair():
    return Pair()


class Namespace:
    @staticmethod
    def inner():
        return plain()


def sized(width, depth=1, *, name: str = "sized", sizes=()):
    inputs = keras.Input((6,), name="features")
    x = inputs
    for _ in range(depth):
        x = layers.Dense(width)(x)
    return keras.Model(inputs, x, name=name + "_".join(map(str, sizes)))


def fails():
    return layers.Dense("many")


def leaves():
    sys.exit("enough")


def nothing():
    pass


def a_layer():
    return layers.Dense(3)


def a_module():
    import tensorflow as tf

    return tf.Module()


ready = 3
"""
MODULES = """
import keras
import numpy as np
import tensorflow as tf

TAKES = [tf.TensorSpec([None, 4], tf.float32, name="features")]


class Scorer(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng().normal(size=(4, 3)).astype("float32"), name="kernel")
        self.head = keras.layers.Dense(2)

    @tf.function(input_signature=TAKES)
    def score(self, features):
        return {"scores": self.head(tf.nn.relu(features @ self.kernel))}


class Coder(Scorer):
    @tf.function(input_signature=TAKES)
    def encode(self, features):
        return features @ self.kernel


class Called(Coder):
    @tf.function(input_signature=TAKES)
    def __call__(self, features):
        return features @ self.kernel + 1.0


def a_function():
    kernel = tf.Variable(tf.random.normal([4, 3]), name="kernel")
    return tf.function(lambda features: features @ kernel, input_signature=TAKES)


def in_a_tuple():
    return "a word", Called()


def nested():
    return tf.function(lambda features: {"a": [features]}, input_signature=TAKES)
"""
FAILING_LINE = CODE[: CODE.index('layers.Dense("many")')].count("\n") + 1
CUSTOM = """
import keras


@keras.saving.register_keras_serializable("mine")
class ScaleOfMine(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale


class ShiftOfMine(keras.layers.Layer):
    def call(self, inputs):
        return inputs + 1.0


def bent_of_mine(inputs):
    return keras.ops.relu(inputs) * 0.5
"""


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """What the code registers and imports would be known to the next test."""
    modules, path, registered = dict(sys.modules), list(sys.path), dict(keras.saving.get_custom_objects())
    yield
    for name in set(sys.modules) - set(modules):
        if "code_of_mine" in name:
            del sys.modules[name]
    sys.path[:] = path
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factory")
    (folder / "code_of_mine.py").write_text(CODE)
    (folder / "broken_code_of_mine.py").write_text("import keras\n\nkeras.no_such_thing\n")
    (folder / "syntax_code_of_mine.py").write_text("def make(:\n")
    (folder / "random.py").write_text(CODE)
    package = folder / "package_code_of_mine" / "inner"
    package.mkdir(parents=True)
    for init in (package, package.parent):
        (init / "__init__.py").write_text("")
    (package / "parts.py").write_text(CODE)
    (package / "nets.py").write_text("from .parts import plain\n\n\ndef make():\n    return plain()\n")
    inputs = keras.Input((6,), name="features")
    layers = keras.layers
    model = keras.Model(inputs, layers.Dense(3, name="out")(layers.Dense(5, name="hidden")(inputs)))
    model.save_weights(folder / "plain.weights.h5")
    model.save(folder / "plain.keras")
    return folder


def made(place: Path, output: Path, function: str, *, verify: bool = False, **options: Any) -> Path:
    outcome = export_here(f"{place}/code_of_mine.py:{function}", output, trust_code=True, verify=verify, **options)
    assert outcome.status == "done", outcome.error
    assert outcome.verification is None or outcome.verification.status in ("passed", "skipped"), outcome.verification
    return Path(outcome.output_path)


def weights_of_keras(place: Path) -> dict[str, np.ndarray]:
    model = keras.models.load_model(place / "plain.keras")
    return {variable.path: np.asarray(variable) for variable in model.weights}


SLOW = pytest.mark.slow
FUNCTIONS = [
    "mixed",
    *(pytest.param(name, marks=SLOW) for name in ("plain", "loading", "assigning", "compiled", "Namespace.inner")),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.slow
def test_a_factory_becomes_onnx_that_computes_the_same(place: Path, tmp_path: Path, function: str) -> None:
    folder = made(place, tmp_path, function, verify=True, seed=3)
    about = manifest(folder)
    assert about["verification"]["status"] == "passed"
    assert about["verification"]["reason"] == ""
    assert about["kind"] == "factory"
    assert about["source"] == f"code_of_mine.py:{function}"
    assert folder.name == function.rpartition(".")[2]
    assert str(place) not in (folder / "manifest.json").read_text()


@pytest.mark.slow
def test_what_the_function_loads_is_what_is_written(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "loading")
    found, expected = initializers(folder), weights_of_keras(place)
    assert manifest(folder)["weights"] == "from the factory"
    assert {name: array.tobytes() for name, array in found.items() if name in expected} == {
        name: array.tobytes() for name, array in expected.items()
    }


@pytest.mark.slow
def test_an_archive_that_the_function_loads_is_not_read_whole(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights_of_keras(place)
    monkeypatch.setattr("keras.src.saving.saving_lib._load_model_from_fileobj", None)
    found = initializers(made(place, tmp_path, "mixed"))
    kernels = [array.tobytes() for array in found.values()]
    assert expected["out/kernel"].tobytes() in kernels


@pytest.mark.slow
def test_what_it_does_not_load_is_initial(place: Path, tmp_path: Path) -> None:
    about = manifest(made(place, tmp_path, "mixed", seed=3, formats=("parquet",)))
    assert about["weights"] == "from the factory; 2 of 6 are initial values (seed 3)"
    fresh = manifest(made(place, tmp_path, "plain", seed=3, formats=("parquet",)))
    assert fresh["weights"] == "random (seed 3)"


@pytest.mark.slow
def test_random_weights_load_nothing(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "assigning", weights="random")
    assert manifest(folder)["weights"] == "random (seed 0)"
    assert initializers(folder)["hidden/kernel"][0, 0] != -1


@pytest.mark.slow
def test_variables_that_are_made_with_values(place: Path, tmp_path: Path) -> None:
    """By optimizers, which are left out, and by layers."""
    folder = made(place, tmp_path, "compiled")
    assert manifest(folder)["weights"] == "from the factory; 2 of 3 are initial values (seed 0)"
    assert any(array.tolist() == [0, 1, 2, 3, 4, 5] for array in initializers(folder).values())


@pytest.mark.slow
def test_weights_of_a_file(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "plain", weights=str(place / "plain.weights.h5"))
    expected = weights_of_keras(place)["hidden/kernel"]
    np.testing.assert_array_equal(initializers(folder)["hidden/kernel"], expected)


@pytest.mark.parametrize("function", ["subclassed", pytest.param("called", marks=SLOW)])
@pytest.mark.slow
def test_a_subclassed_model_gets_its_inputs(place: Path, tmp_path: Path, function: str) -> None:
    folder = made(place, tmp_path, function, verify=True, input_shapes=("?,6",), formats=("onnx", "parquet"))
    assert manifest(folder)["verification"]["status"] == "passed"
    rows = pq.read_table(folder / "layers.parquet").to_pylist()
    assert [row["layer"] for row in rows] == ["inputs", "twice", "twice/dense", "twice/dense_1"]
    assert sum(row["params"] for row in rows) == 6 * 4 + 4 + 4 * 2 + 2


@SLOW
def test_several_inputs_by_the_names_of_the_call(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "pair", verify=True, input_shapes=("tokens:?,7", "mask:?,7"))
    about = manifest(folder)
    assert about["verification"]["status"] == "passed"
    assert [(spec["name"], spec["shape"], spec["dtype"]) for spec in about["inputs"]] == [
        ("tokens", [None, 7], "int32"),
        ("mask", [None, 7], "int32"),
    ]


@pytest.mark.slow
def test_a_model_without_inputs_is_described(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "called", formats=("parquet",))
    assert [row["layer"] for row in pq.read_table(folder / "layers.parquet").to_pylist()] == ["dense", "dense_1"]
    outcome = export_here(f"{place}/code_of_mine.py:called", tmp_path, trust_code=True)
    assert outcome.error is not None
    assert outcome.error["type"] == "UnsupportedError"
    assert "--input-shape" in outcome.error["hint"]


@pytest.mark.parametrize("source", ["package_code_of_mine.inner.nets:make", "package_code_of_mine/inner/nets.py:make"])
@pytest.mark.slow
def test_modules_in_packages(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """By name from the current folder, and by the file, whose relative imports work."""
    monkeypatch.chdir(place)
    outcome = export_here(source, tmp_path, trust_code=True, formats=("parquet",))
    assert outcome.status == "done", outcome.error


@pytest.mark.slow
def test_a_file_does_not_take_the_place_of_a_library(place: Path, tmp_path: Path) -> None:
    import random

    outcome = export_here(f"{place}/random.py:plain", tmp_path, trust_code=True, formats=("parquet",))
    assert outcome.status == "done", outcome.error
    assert sys.modules["random"] is random


def test_the_digest_follows_the_text_and_the_function(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "code_of_mine.py"
    digests = []
    for text, function in ((CODE, "plain"), (CODE, "plain"), (CODE, "loading"), (CODE + "\n# more\n", "plain")):
        copy.write_text(text)
        digests.append(source_digest(job_for(f"{copy}:{function}", tmp_path, trust_code=True)))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def refusal(source: str, **options: Any) -> Exception:
    (found,) = plan([source], ExportOptions(**options))
    assert isinstance(found, Refusal)
    return found.error


def test_nothing_runs_without_trust(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = tmp_path / "bomb_code_of_mine.py"
    bomb.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n\n\ndef make():\n    pass\n")
    assert isinstance(refusal(f"{bomb}:make"), TrustError)
    assert cli.main(["inspect", f"{bomb}:make"], run=run_here) == 5
    assert f"{bomb}:make would be imported and run" in capsys.readouterr().err
    assert isinstance(refusal(str(place / "plain.keras"), custom_objects=(str(bomb),)), TrustError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ("code_of_mine.py", UsageError, "the function that makes the model is missing"),
        ("missing_code_of_mine.py:make", SourceError, "no such file"),
        ("no.such.module_of_mine:make", SourceError, "no such module"),
    ],
)
def test_what_is_found_out_without_running_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: type[Exception], says: str
) -> None:
    monkeypatch.chdir(place)
    error = refusal(source, trust_code=True)
    assert isinstance(error, kind)
    assert says in str(error)


def test_a_file_alone_names_its_functions(place: Path) -> None:
    error = refusal(str(place / "code_of_mine.py"))
    assert isinstance(error, UsageError)
    assert f"{place}/code_of_mine.py:plain" in error.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kind", "says"),
    sampled(
        [
            (
                "code_of_mine.py:fails",
                SourceError,
                f"line {FAILING_LINE} of code_of_mine.py: raises an error: ValueError",
            ),
            ("code_of_mine.py:leaves", SourceError, "sys.exit('enough') was called"),
            ("code_of_mine.py:nothing", SourceError, "it returns nothing"),
            ("code_of_mine.py:a_layer", UnsupportedError, "Dense is not a model"),
            ("code_of_mine.py:a_module", UnsupportedError, "Module has no tf.function with an input_signature"),
            ("code_of_mine.py:ready", SourceError, "it is a int"),
            ("code_of_mine.py:plane", SourceError, "has no function 'plane'"),
            ("code_of_mine.py:subclassed", UnsupportedError, "has no weights yet"),
            ("broken_code_of_mine.py:make", SourceError, "line 3 of broken_code_of_mine.py: raises an error"),
            ("syntax_code_of_mine.py:make", SourceError, "SyntaxError"),
        ],
        every=3,
    ),
)
def test_what_goes_wrong(place: Path, tmp_path: Path, source: str, kind: type[Exception], says: str) -> None:
    outcome = export_here(f"{place}/{source}", tmp_path / "out", trust_code=True)
    assert outcome.error is not None
    text = f"{outcome.error['where']}: {outcome.error['what']}: {outcome.error['why']}"
    assert outcome.error["type"] == kind.__name__
    assert says in text
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_inputs_that_do_not_fit(place: Path, tmp_path: Path) -> None:
    source = f"{place}/code_of_mine.py:pair"
    outcome = export_here(source, tmp_path, trust_code=True, input_shapes=("?,7",))
    assert outcome.error is not None
    assert outcome.error["what"] == "does not take such inputs"


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """A model with a registered class, one that is not, and a function; its code is in a file beside it."""
    code = tmp_path / "custom_code_of_mine.py"
    code.write_text(CUSTOM)
    sys.path.append(str(tmp_path))
    import custom_code_of_mine as mine  # type: ignore[import-not-found]

    layers = [keras.Input((4,)), keras.layers.Dense(3, activation=mine.bent_of_mine), mine.ScaleOfMine(name="scale")]
    model = keras.Sequential([*layers, mine.ShiftOfMine(name="shift")], name="custom")
    model.set_weights([np.linspace(0.1, 1, 12).reshape(4, 3), np.ones(3), np.array([1.0, 2.0, 3.0])])
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"custom.{suffix}")
    (tmp_path / "custom.json").write_text(model.to_json())
    model.save_weights(tmp_path / "custom.weights.h5")
    del sys.modules["custom_code_of_mine"]
    keras.saving.get_custom_objects().clear()
    return tmp_path


@pytest.mark.parametrize("suffix", ["keras", *(pytest.param(suffix, marks=SLOW) for suffix in ("h5", "json"))])
@pytest.mark.slow
def test_custom_objects(custom: Path, suffix: str) -> None:
    source, code = custom / f"custom.{suffix}", custom / "custom_code_of_mine.py"
    weights = str(custom / "custom.weights.h5") if suffix == "json" else "auto"
    refused = export_here(source, custom / "out", trust_code=True, weights=weights)
    assert refused.error is not None
    assert refused.error["type"] == "UnsupportedError"
    assert "--custom-objects" in refused.error["hint"]
    outcome = export_here(source, custom / "out", trust_code=True, weights=weights, custom_objects=(str(code),))
    assert outcome.status == "done", outcome.error
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")
    folder = Path(outcome.output_path)
    assert any(array.tolist() == [1.0, 2.0, 3.0] for array in initializers(folder).values())
    assert manifest(folder)["arguments"]["reading"]["custom_objects"] == ["custom_code_of_mine.py"]


def test_a_module_without_classes(custom: Path) -> None:
    (custom / "empty_code_of_mine.py").write_text("import keras\n")
    options = {"trust_code": True, "custom_objects": (str(custom / "empty_code_of_mine.py"),)}
    outcome = export_here(custom / "custom.keras", custom / "out", **options)
    assert outcome.error is not None
    assert outcome.error["what"] == "has no custom objects"


def test_another_text_of_the_classes_is_another_source(custom: Path) -> None:
    code = custom / "custom_code_of_mine.py"

    def digest() -> str:
        options = {"trust_code": True, "custom_objects": (str(code),)}
        return source_digest(job_for(custom / "custom.keras", custom / "out", **options))

    before = digest()
    code.write_text(CUSTOM + "\n# changed\n")
    assert digest() != before


PAGE = (Path(__file__).parent.parent / "docs" / "sources.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^export-model (.*--trust-code[^#\n]*)", PAGE, re.MULTILINE)


@pytest.mark.parametrize("words", SHOWN)
@pytest.mark.slow
def test_the_commands_of_the_page_are_understood(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("package", "my_package"):
        Path(folder).mkdir()
    for name in ("models", "package/__init__", "package/models", "my_layers", "losses", "my_package/layers"):
        Path(f"{name}.py").touch()
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("model.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("model.h5")
    jobs: list[Any] = []

    def run(job: Any, *, watch: Any) -> Outcome:
        jobs.append(job)
        return Outcome(job.name, "done", job.output_path)

    assert cli.main(shlex.split(words), run=run) == 0
    assert len(jobs) == 1
    assert len(SHOWN) == 6


def sized(place: Path, *args: str) -> Any:
    return job_for(f"{place}/code_of_mine.py:sized", place, trust_code=True, args=args)


def test_a_function_is_called_with_arguments(place: Path) -> None:
    model = factory.made(sized(place, "width=4", "depth=2", "name=net", "sizes=[3, 5]"))
    assert [layer.units for layer in model.layers[1:]] == [4, 4]
    assert model.name == "net3_5"


def test_a_value_is_json_or_a_text() -> None:
    texts = ("a=32", 'b="32"', "c=null", "d=small", "e=[1, {}]", "f=", "g=NaN", "h=x=y", "i=" + "[" * 100_000)
    found = parse_arguments(texts)
    wanted = {"a": 32, "b": "32", "c": None, "d": "small", "e": [1, {}], "f": "", "g": "NaN", "h": "x=y"}
    assert {name: found[name] for name in wanted} == wanted
    assert parse_arguments(argument_texts(wanted)) == wanted


def test_other_arguments_are_another_export(place: Path) -> None:
    fingerprints = {sized(place, *args).fingerprint for args in ((), ("width=4",), ("width=5",), ('width="4"',))}
    assert len(fingerprints) == 4


@pytest.mark.parametrize(
    ("args", "why", "hint"),
    [
        (
            (),
            "missing a required argument: 'width'; it takes (width, depth=1, *, name: str = 'sized', sizes=())",
            "width=VALUE",
        ),
        (("width=1", "deepth=3"), "unexpected keyword argument 'deepth'; it takes (width", "--arg depth=3"),
    ],
)
def test_what_a_function_takes_is_said(place: Path, args: tuple[str, ...], why: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        factory.made(sized(place, *args))
    assert why in caught.value.why
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("source", "args", "why"),
    [
        ("code_of_mine.py:sized", ("width",), "it is not NAME=VALUE"),
        ("code_of_mine.py:sized", ("a b=1",), "it is not NAME=VALUE"),
        ("code_of_mine.py:sized", ("width=1", "width=2"), "given twice"),
        ("plain.keras", ("width=1",), "only a function is called with arguments"),
    ],
)
def test_arguments_that_cannot_be(place: Path, source: str, args: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        job_for(place / source, place, trust_code=True, args=args)


@pytest.mark.slow
def test_arguments_reach_the_worker_and_the_receipt(place: Path, tmp_path: Path) -> None:
    folder = made(place, tmp_path, "sized", verify=True, args=("width=7",))
    about = manifest(folder)
    assert about["outputs"][0]["shape"] == [None, 7]
    assert about["arguments"]["reading"]["arguments"] == {"width": 7}
    assert about["verification"]["status"] == "passed"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "module_code_of_mine.py").write_text(MODULES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "signature", "output"),
    sampled(
        [
            ("Scorer", "", "scores"),
            ("Coder", "encode", "output_0"),
            ("a_function", "", "output_0"),
            ("in_a_tuple", "", "output_0"),
        ],
        every=2,
    ),
)
def test_a_module_is_exported_through_a_saved_model(
    modules: Path, tmp_path: Path, function: str, signature: str, output: str
) -> None:
    """Whatever it draws at random: the ONNX file is compared with the very module that was converted."""
    source = f"{modules}/module_code_of_mine.py:{function}"
    outcome = export_here(source, tmp_path, trust_code=True, signature=signature)
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")
    assert [row.output for row in outcome.verification.outputs] == [output]
    folder = Path(outcome.output_path)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]
    about = manifest(folder)
    assert (about["kind"], about["weights"]) == ("factory", "from the factory")
    model = onnx.load(str(folder / "model.onnx"))
    assert [value.name for value in model.graph.input] == ["features"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "options", "kind", "says"),
    sampled(
        [
            ("Coder", {}, UsageError, "has several functions: there are encode, score"),
            ("Coder", {"signature": "decode"}, UsageError, "has no function 'decode': there are encode, score"),
            ("Scorer", {"weights": "random"}, UsageError, "cannot take --weights random: it makes a tf.Module"),
            ("nested", {}, SourceError, "cannot be saved as a SavedModel"),
        ],
        every=2,
    ),
)
def test_modules_that_cannot_be_exported(
    modules: Path, tmp_path: Path, function: str, options: dict[str, str], kind: type[Exception], says: str
) -> None:
    outcome = export_here(f"{modules}/module_code_of_mine.py:{function}", tmp_path, trust_code=True, **options)
    assert outcome.error is not None
    assert outcome.error["type"] == kind.__name__
    assert says in f"{outcome.error['what']}: {outcome.error['why']}"
