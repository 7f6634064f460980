"""Files of settings: what they mean, what counts more, and that every mistake is named with its line."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest

from exporter import config, plan
from exporter.commands import batch
from exporter.commands.requests import OPTION_FIELDS
from exporter.config import shipped, toml_file
from exporter.config.keys import Key, option_keys
from exporter.config.mistakes import Mistakes
from exporter.config.tables import COMMAND_LINE
from exporter.errors import UsageError
from exporter.options import ExportOptions
from exporter.records import Job
from exporter.sources.detection.applications import application_names, normalise

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "jobs": Key("jobs", "jobs", "integer"),
    "fail-fast": Key("fail-fast", "fail_fast", "flag"),
    "timeout": Key("timeout", "timeout", "text", takes_numbers=True),
    "output": Key("output", "output", "text", place=lambda value, folder: str(Path(folder, value))),
}


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def keras_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def load(folder: Path, text: str, **options: Any) -> config.Config:
    return config.load([write(folder / "zoo.toml", text)], settings=SETTINGS, **options)


def entries(folder: Path, text: str, **options: Any) -> list[tuple[str, str]]:
    """Source, relative to the folder, and name."""
    found = load(folder, text, **options).entries
    return [(entry.source.removeprefix(f"{folder}/"), entry.name) for entry in found]


def mistakes(folder: Path, text: str) -> list[str]:
    """Without what is the same for all, and with paths relative to the folder."""
    with pytest.raises(UsageError) as caught:
        load(folder, text)
    head, *lines = str(caught.value).replace(f"{folder}/", "").splitlines()
    assert head.startswith(f"{len(lines)} mistake")
    return [line.strip() for line in lines]


def test_models_with_their_own_options(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        [settings]
        jobs = 3
        timeout = 90
        [defaults]
        to = "onnx, SVG"
        opset = 17
        input-shape = [1, 224, 224, 3]
        atol = 1
        [[models]]
        source = "resnet50"
        [[models]]
        source = "vgg16"
        name = "large"
        opset = 20
        input-shape = ["image:?,64,64,3", "mask:1,2"]
        max-memory = 4000000000
        weights = "random"
        """,
    )
    first, second = found.entries
    assert found.settings == {"jobs": 3, "timeout": "90"}
    shape = ("1,224,224,3",)
    assert first == plan.Entry(
        "resnet50", ExportOptions(formats=("onnx", "svg"), opset=17, input_shapes=shape, atol=1.0)
    )
    assert (second.source, second.name) == ("vgg16", "large")
    assert second.options == dataclasses.replace(
        first.options,
        opset=20,
        input_shapes=("image:?,64,64,3", "mask:1,2"),
        max_memory="4000000000",
        weights="random",
    )


def test_a_mistake_in_a_flag_is_none_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, '[[models]]\nsource = "vgg16"\n', flags={"formats": ("onxx",)})
    assert str(raised.value).startswith("--to onxx: is an unknown format")
    assert raised.value.hint == "--to onnx"


def test_flags_count_more_than_models_and_those_more_than_defaults(tmp_path: Path) -> None:
    text = '[defaults]\nseed = 1\nopset = 17\n[[models]]\nsource = "vgg16"\nseed = 2\ndtype = "float16"\n'
    (entry,) = load(tmp_path, text, flags={"dtype": "float32"}).entries
    assert (entry.options.opset, entry.options.seed, entry.options.dtype) == (17, 2, "float32")


def test_sources_of_the_command_line_are_added_and_get_the_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, '[defaults]\nseed = 1\n[[models]]\nsource = "vgg16"', sources=["x.keras"]).entries
    assert [entry.source for entry in found] == ["vgg16", "x.keras"]
    assert [entry.options.seed for entry in found] == [1, 1]


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keras_file(tmp_path / "zoo" / "a.keras")
    write(tmp_path / "zoo" / "w.weights.h5", "")
    write(tmp_path / "zoo" / "nets.py", "")
    write(
        tmp_path / "zoo" / "zoo.toml",
        """
        [settings]
        output = "out"
        [defaults]
        weights = "w.weights.h5"
        custom-objects = ["nets.py", "package.nets"]
        [[models]]
        source = ["a.keras", "nets.py:make", "package.nets:make", "s3://bucket/b.keras", "vgg16"]
        """,
    )
    found = config.load(["zoo/zoo.toml"], settings=SETTINGS).entries
    assert [entry.source for entry in found] == [
        "zoo/a.keras",
        "zoo/nets.py:make",
        "package.nets:make",
        "s3://bucket/b.keras",
        "vgg16",
    ]
    assert found[0].options.output == "zoo/out"
    assert found[0].options.weights == "zoo/w.weights.h5"
    assert found[0].options.custom_objects == ("zoo/nets.py", "package.nets")


def test_a_name_of_keras_is_no_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "vgg16").mkdir()
    assert entries(tmp_path, '[[models]]\nsource = "vgg16"') == [("vgg16", "")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.keras", ["a.keras", "b.keras"]),
        ("[b-z].keras", ["b.keras"]),
        ("deep/*/*.keras", ["deep/x/d.keras"]),
        ("**/*.keras", ["a.keras", "b.keras", "deep/c.keras", "deep/x/d.keras"]),
        ("a[1].keras", ["a[1].keras"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, found: list[str]) -> None:
    folder = tmp_path / "with [brackets]"
    for name in ("a.keras", "b.keras", "deep/c.keras", "deep/x/d.keras"):
        keras_file(folder / name)
    if "[1]" in pattern:
        keras_file(folder / pattern)
    assert [source for source, _ in entries(folder, f'[[models]]\nsource = "{pattern}"')] == found


def test_what_is_excluded(tmp_path: Path) -> None:
    for name in ("a.keras", "b.keras", "deep/c.keras"):
        keras_file(tmp_path / name)
    write(tmp_path / "more.toml", '[[models]]\nsource = ["ResNet50", "ResNet101", "VGG16"]')
    text = """
    include = "more.toml"
    exclude = ["resnet_1*", "deep/*"]
    [[models]]
    source = "**/*.keras"
    exclude = "b.keras"
    """
    assert [source for source, _ in entries(tmp_path, text)] == ["ResNet50", "VGG16", "a.keras"]


def test_the_including_file_counts_more_and_each_file_is_read_once(tmp_path: Path) -> None:
    write(
        tmp_path / "base.toml", '[settings]\njobs = 1\n[defaults]\nseed = 1\nopset = 17\n[[models]]\nsource = "vgg16"'
    )
    write(tmp_path / "sub" / "more.toml", 'include = ["../base.toml"]\n[[models]]\nsource = "vgg19"')
    found = load(tmp_path, 'include = ["base.toml", "sub/more.toml"]\n[settings]\njobs = 2\n[defaults]\nseed = 2')
    assert [entry.source for entry in found.entries] == ["vgg16", "vgg19"]
    assert {(entry.options.seed, entry.options.opset) for entry in found.entries} == {(2, 17)}
    assert found.settings == {"jobs": 2}


def test_files_that_are_named_together_keep_their_defaults(tmp_path: Path) -> None:
    paths = [
        write(
            tmp_path / f"{seed}.toml",
            f'[settings]\njobs = {seed}\n[defaults]\nseed = {seed}\n[[models]]\nsource = "{name}"',
        )
        for seed, name in ((1, "vgg16"), (2, "vgg19"))
    ]
    found = config.load(paths, settings=SETTINGS)
    assert [(entry.source, entry.options.seed) for entry in found.entries] == [("vgg16", 1), ("vgg19", 2)]
    assert found.settings == {"jobs": 2}


MISTAKES = [
    ("outptu = 1", 1, "there is no outptu at the top (did you mean output?)"),
    ("[defaults]\n\ninput_shape = [1]", 3, "there is no input_shape in [defaults] (did you mean input-shape?)"),
    ("[settings]\ntimeot = 1", 2, "there is no timeot in [settings] (did you mean timeout?)"),
    ("[settings]\nopset = 1", 2, "there is no opset in [settings] (it belongs into [defaults] or a model)"),
    ("[defaults]\njobs = 1", 2, "there is no jobs in [defaults] (it belongs into [settings])"),
    ("[settings]\nforce = true", 2, "there is no force in [settings] (it is for the command line only)"),
    ("[defaults]\nno-verify = true", 2, "there is no no-verify in [defaults] (write verify = false)"),
    ("[[model]]\nsource = 'vgg16'", 1, "there is no model at the top (did you mean models?)"),
    ("[models]\nsource = 'vgg16'", 1, "models is not a list of tables (write [[models]] before each one)"),
    ("settings = 3", 1, "settings is not a table (write [settings])"),
    ("[[models]]\nname = 'x'", 1, 'a model without a source (such as source = "resnet101")'),
    ("[[models]]\nsource = 3", 2, "source = 3 is not a text or a list of texts"),
    ("[[models]]\nsource = ['vgg16', '']", 2, 'source = ["vgg16", ""] is not a text or a list of texts'),
    ("[settings]\njobs = '4'", 2, 'jobs = "4" is not a whole number (without quotes: jobs = 4)'),
    ("[settings]\njobs = true", 2, "jobs = true is not a whole number"),
    ("[settings]\njobs = 1.5", 2, "jobs = 1.5 is not a whole number"),
    ("[settings]\nfail-fast = 1", 2, "fail-fast = 1 is not true or false"),
    ("[defaults]\natol = 'small'", 2, 'atol = "small" is not a number'),
    (
        "[defaults]\natol = nan",
        2,
        "atol = nan cannot be used: a tolerance is finite and not negative (leave `atol` out)",
    ),
    ("[defaults]\nopset = 99", 2, r"opset = 99 cannot be used: supported opsets are \d+ to \d+ \(opset = 18\)"),
    ("[defaults]\nto = ['onxx']", 2, r'to = "onxx" is an unknown format: there are onnx, .* \(to = "onnx"\)'),
    ("[defaults]\nto = []", 2, r"to = \[\] cannot be used: no format is named .*"),
    ("[defaults]\nopset.x = 1", 2, "opset = a table is not a whole number"),
    ("[defaults]\ntheme = 'drak'", 2, r'theme = "drak" cannot be used: there are .* \(theme = "dark"\)'),
    ("[defaults]\nmax-memory = 'much'", 2, r'max-memory = "much" cannot be used: .* \(max-memory = "4GiB"\)'),
    ("[defaults]\nsource-kind = 'saved'", 2, r'source-kind = "saved" is an unknown kind of source: .*'),
    ("[defaults]\nweights = 'randm'", 2, r'weights = ".*randm" cannot be used: .*no such file exists.*'),
    ("[[models]]\nsource = 'vgg61'", 2, r"vgg61 is unknown: .* \(did you mean vgg.*\?\)"),
    ("[[models]]\nsource = 'sub/*.keras'", 2, r"nothing matches sub/\*.keras \(there is no folder sub\)"),
    ("[[models]]\nsource = [\n'vgg16',\n'x.keras'\n]", 4, "x.keras cannot be read: no such file or folder"),
    (
        "[[models]]\nsource = 'vgg16'\nexclude = 'vgg61'",
        3,
        "exclude: vgg61 is none of the models (did you mean vgg16?)",
    ),
    ("include = 'other.toml'", 1, "other.toml cannot be read: No such file or directory"),
    ('include = "a\\u0000b"', 1, 'include = "a\0b" is not a list of files (such as include = ["other.toml"])'),
    ("[[models]]\nsource = 'vgg16'\nsignature = \"\\u0000\"", 3, 'signature = "\0" is not a text, such as "…"'),
    ("include = 3", 1, 'include = 3 is not a list of files (such as include = ["other.toml"])'),
    ("include = 'zoo.toml'", 1, "includes go in a circle: zoo.toml → zoo.toml (leave this one out)"),
    ("[settings]\njobs = = 1", 2, "is not TOML: .*"),
    ("[settings]\njobs = [1,\n\n", 2, "is not TOML: [^(]*"),
    ("a = 1\na = 2", 2, "is not TOML: [^(]*"),
    (
        "[[models]]\nsource = ['vgg16', 'vgg19']\nname = 'x'",
        3,
        "one name, x, for 2 models (leave it out: each source gives its own)",
    ),
    (
        "[[models]]\nsource = 'vgg16'\nname = '../x'",
        3,
        'name = "../x" is not the name of a folder (such as name = "x")',
    ),
    (
        "[[models]]\nsource = 'vgg16'\nname = 'x'\n[[models]]\nsource = 'vgg19'\nname = 'X'",
        6,
        'name = "X" is taken (by zoo.toml:3)',
    ),
    (
        "[defaults]\ndepth = 1\n[[models]]\nsource = 'vgg16'\nto = 'onnx'",
        5,
        r"`to` cannot be used: options for pictures are for .* \(add svg to `to`\)",
    ),
    (
        "[[models]]\nsource = 'vgg16'\nshard-size = '1GB'\nexternal-data = 'never'",
        3,
        "`shard-size` cannot be used: there are no data files with `external-data` never (leave one of them out)",
    ),
]


@pytest.mark.parametrize(("text", "line", "sentence"), MISTAKES, ids=[sentence[:50] for _, _, sentence in MISTAKES])
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    (found,) = mistakes(tmp_path, text)
    place, _, said = found.partition(": ")
    assert place == f"zoo.toml:{line}"
    assert said == sentence or re.fullmatch(sentence, said)


def test_all_mistakes_of_all_files_are_in_one_report(tmp_path: Path) -> None:
    write(tmp_path / "b.toml", "x =\n")
    write(tmp_path / "sub" / "c.toml", '[[models]]\nsource = "d.keras"\nsed = 1\n')
    text = 'include = ["b.toml", "sub/c.toml"]\n[defaults]\nopset = 1\nto = 5\n[[models]]\n[[models]]\nsource = "vgg1"'
    places = [line.partition(": ")[0] for line in mistakes(tmp_path, text)]
    assert places == [
        "b.toml:1",
        "sub/c.toml:2",
        "sub/c.toml:3",
        "zoo.toml:3",
        "zoo.toml:4",
        "zoo.toml:5",
        "zoo.toml:7",
    ]


def test_a_thousand_mistakes_are_not_a_thousand_lines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1000 mistakes") as caught:
        load(tmp_path, '[[models]]\nsource = "vgg16"\nsed = 1\n' * 1000)
    assert str(caught.value).endswith("… and 950 more")


def test_a_circle_of_several_files_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'include = "b.toml"')
    write(tmp_path / "b.toml", '\ninclude = ["a.toml"]')
    assert mistakes(tmp_path, 'include = "a.toml"') == [
        "b.toml:2: includes go in a circle: a.toml → b.toml → a.toml (leave this one out)"
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x93NUMPY\x01\x00\xff\xfe", "is not text in UTF-8, as TOML has to be"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"#" * (toml_file.LIMIT_BYTES + 1), "is larger than 16 MiB (is it a model?)"),
    ],
    ids=["binary", "deep", "large"],
)
def test_what_is_no_file_of_settings(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "zoo.toml").write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        config.load([str(tmp_path / "zoo.toml")])


def test_a_file_without_models_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model is named"):
        load(tmp_path, "[defaults]\nseed = 1")


def test_lines_of_all_that_can_be_written(tmp_path: Path) -> None:
    text = """# first
a.b = 1
"c d" = [ 1, # one
  { e = 2 } ]
[t.'u']
v = \"\"\"
long\"\"\"
w = 3
[[m]]
x = 1
[m.n]
y = 1
[[m]]
[[m.o]]
z = 1
"""
    found = toml_file.read(write(tmp_path / "x.toml", text.replace("\n", "\r\n")), Mistakes())
    lines = {
        ("a", "b"): 2,
        ("c d",): 3,
        ("c d", 0): 3,
        ("c d", 1, "e"): 4,
        ("t", "u"): 5,
        ("t", "u", "v"): 6,
        ("t", "u", "w"): 8,
        ("m", 0): 9,
        ("m", 0, "x"): 10,
        ("m", 0, "n", "y"): 12,
        ("m", 1): 13,
        ("m", 1, "o", 0, "z"): 15,
    }
    assert {keys: found.place(*keys).line for keys in lines} == lines
    assert found.place("m", 1, "missing").line == 13


def test_keys_are_the_flags_of_an_export() -> None:
    """Compared with what click makes of the flags: the same names, and values of the same kind."""
    flags = {parameter.name: parameter for parameter in batch.command.params if isinstance(parameter, click.Option)}
    keys = option_keys()
    assert {key.field for key in keys.values()} == OPTION_FIELDS - {"output"}
    for key in keys.values():
        flag = flags[key.field]
        assert f"--{key.name}" in flag.opts
        kinds = {"flag": flag.is_flag, "texts": flag.multiple, "table": flag.multiple}
        assert kinds.get(key.kind, not flag.is_flag and not flag.multiple)
        assert {"integer": click.INT, "number": click.FLOAT}.get(key.kind, flag.type) == flag.type


def option_names() -> set[str]:
    """All that may be written: the flags of a batch, those of single models and those of the whole."""
    options = [parameter for parameter in batch.command.params if isinstance(parameter, click.Option)]
    names = {max(option.opts, key=len).removeprefix("--") for option in options}
    return names - set(COMMAND_LINE)


def test_the_template_has_every_option_of_the_program(tmp_path: Path) -> None:
    """A new flag needs a line there; what is commented out is right when the # goes."""
    text = (ROOT / "configs" / "template.toml").read_text(encoding="utf-8")
    assert option_names() <= set(re.findall(r"^#?([a-z-]+) = ", text, re.MULTILINE))
    for name in ("layers.py", "other.toml"):
        write(tmp_path / name, "")
    for name in ("models/a.keras", "models/old_b.keras"):
        keras_file(tmp_path / name)
    settings = {key.name: key for key in _setting_keys()}
    opened = write(tmp_path / "mine.toml", re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE))
    found = config.load([opened], settings=settings)
    assert [entry.name for entry in found.entries] == ["small", "", ""]
    assert [Path(entry.source).name for entry in found.entries] == ["MobileNetV3Small", "ResNet50", "a.keras"]
    assert set(found.settings) == {key.field for key in settings.values()}


def _setting_keys() -> list[Key]:
    from exporter.commands.requests import setting_keys

    context = click.Context(batch.command)
    defaults = batch.command.make_context("batch", ["vgg16"]).params
    flags = {
        name: value for name, value in defaults.items() if name not in ("sources", "files", "dry_run", "plan_format")
    }
    return list(setting_keys(context, flags, batch.taken_of).values())


@pytest.mark.parametrize("name", shipped.NAMES)
def test_what_comes_along_is_found_from_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(shipped.find(name)).samefile(ROOT / "configs" / name)
    assert shipped.find(f"configs/{name}") == shipped.find(name)
    own = write(tmp_path / name, "")
    assert shipped.find(name) == name
    assert shipped.find(own) == own
    assert config.load([f"configs/{name}"]).entries


def test_all_applications_are_in_their_file() -> None:
    """`tests/test_detection.py` compares the names with Keras itself."""
    found = config.load([str(ROOT / "configs" / "applications.toml")]).entries
    assert sorted(normalise(entry.source) for entry in found) == sorted(application_names())


def test_planning_stays_quick_with_many_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that many have in common are checked once, and each source is looked at once."""
    from exporter import options
    from exporter.sources import detection

    calls = {"checked": 0, "detected": 0}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(plan, "checked", counted("checked", options.checked))
    monkeypatch.setattr(detection, "detect", counted("detected", detection.detect))
    for number in range(200):
        keras_file(tmp_path / "models" / f"m{number}.keras")
    text = '[defaults]\nto = "parquet"\n' + "".join(
        f'[[models]]\nsource = "models/m{number}.keras"\nname = "n{number}"\n' for number in range(200)
    )
    planned = plan.plan_entries(load(tmp_path, text).entries)
    assert [job.name for job in planned if isinstance(job, Job)] == [f"n{number}" for number in range(200)]
    assert calls == {"checked": 1, "detected": 200}


def test_arguments_of_a_factory_are_a_table(tmp_path: Path) -> None:
    write(tmp_path / "nets.py", "")
    text = '[[models]]\nsource = "nets.py:make"\nargs = { width = 32, tag = "32", sizes = [3, 5] }'
    (entry,) = load(tmp_path, text).entries
    assert entry.options.args == ("width=32", 'tag="32"', "sizes=[3, 5]")


@pytest.mark.parametrize("args", ["3", "{ day = 2026-11-26 }", "{ width = nan }", '{ "no name" = 1 }'])
def test_arguments_that_cannot_be(tmp_path: Path, args: str) -> None:
    (mistake,) = mistakes(tmp_path, f'[[models]]\nsource = "vgg16"\nargs = {args}')
    assert "args = " in mistake
