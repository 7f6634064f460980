"""The flags of an export: as the user wrote them, and checked, as a job that only lacks its source."""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from exporter import memory
from exporter.defaults import (
    COLOURINGS,
    DEFAULT_FORMATS,
    DIRECTIONS,
    DTYPES,
    EXTERNAL_DATA_CHOICES,
    SUPPORTED_OPSETS,
    THEME_NAMES,
)
from exporter.errors import UsageError
from exporter.formats import FORMATS, STATISTICS, needed
from exporter.formats.pictures import ALL
from exporter.records import WEIGHT_CHOICES, Job, PictureOptions, Shape, SourceOptions
from exporter.sources.detection.python_sources import parse_arguments

MAX_SEED = 2**32 - 1
MAX_DIMENSION = 2**31 - 1
DYNAMIC = ("?", "none", "-1")


@dataclass(frozen=True)
class ExportOptions:
    """The flags of an export as the user wrote them; `input_shapes` are texts such as `image:1,224,224,3`.

    Without `formats`, those of `DEFAULT_FORMATS` that the kind of source has are written.
    """

    formats: tuple[str, ...] | None = None
    output: str = "outputs"
    weights: str = "auto"
    seed: int = 0
    opset: int = Job.opset
    dtype: str = Job.dtype
    input_shapes: tuple[str, ...] = ()
    batch_size: int | None = None
    verify: bool = True
    atol: float = Job.atol
    rtol: float = Job.rtol
    max_memory: str | None = None
    external_data: str = Job.external_data
    shard_size: str | None = None
    trust_code: bool = False
    layout_seconds: float = Job.layout_seconds
    stats: bool = False
    depth: int | None = None
    expand: tuple[str, ...] = ()
    max_nodes: int | None = None
    direction: str = PictureOptions.direction
    theme: str = PictureOptions.theme
    color_by: str = PictureOptions.color_by
    source_kind: str = ""
    signature: str = SourceOptions.signature
    tag: str = SourceOptions.tag
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    custom_objects: tuple[str, ...] = ()
    dequantize: bool = False
    args: tuple[str, ...] = ()


def checked(options: ExportOptions) -> Job:
    """The options as a job without its source. Raises UsageError."""
    _check_numbers(options)
    formats = _formats(DEFAULT_FORMATS if options.formats is None else options.formats)
    takers = [name for name, entry in FORMATS.items() if entry.takes_statistics]
    has_taker = not options.stats or any(name in takers for name in formats)
    require(has_taker, "--stats", f"statistics go into {', '.join(takers)}", f"add {takers[0]} to --to")
    return Job(
        source="",
        kind="",
        name="",
        output_path="",
        formats=formats,
        fingerprint="",
        source_digest="",
        weights=_weights(options.weights),
        seed=options.seed,
        opset=options.opset,
        dtype=options.dtype,
        batch_size=options.batch_size,
        input_shapes=_input_shapes(options),
        verify=options.verify,
        atol=options.atol,
        rtol=options.rtol,
        max_memory_bytes=_size(options.max_memory, "--max-memory", "4GiB"),
        external_data=_external_data(options),
        shard_size_bytes=_size(options.shard_size, "--shard-size", "2GB"),
        trust_code=options.trust_code,
        layout_seconds=options.layout_seconds,
        stats=options.stats or STATISTICS in needed(formats),
        picture=_picture(options, formats),
        reading=SourceOptions(
            options.signature,
            options.tag,
            options.inputs,
            options.outputs,
            options.custom_objects,
            options.dequantize,
            arguments=parse_arguments(options.args),
        ),
    )


def parse_input_shape(text: str) -> tuple[str, Shape]:
    """`image:1,224,224,3` → (`image`, (1, 224, 224, 3)); the name is empty where none is given.

    `?`, `None` and `-1` are dynamic dimensions. Raises UsageError.
    """
    name, _, dimensions = text.rpartition(":")
    body = dimensions.strip().removeprefix("(").removeprefix("[").removesuffix(")").removesuffix("]")
    return name.strip(), tuple(_dimension(part.strip(), text) for part in body.rstrip(", ").split(","))


def _dimension(part: str, text: str) -> int | None:
    if part.lower() in DYNAMIC:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", part) or not 1 <= int(part) <= MAX_DIMENSION:
        raise UsageError(
            f"{part!r} is not a dimension",
            where=f"--input-shape {text}",
            why="a dimension is a whole number from 1, or ? for a dynamic one",
            hint="--input-shape NAME:1,224,224,3 (the name may be left out when there is one input)",
        )
    return int(part)


def _check_numbers(options: ExportOptions) -> None:
    opsets = f"supported opsets are {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}"
    require(options.opset in SUPPORTED_OPSETS, f"--opset {options.opset}", opsets, "--opset 18")
    require(options.dtype in DTYPES, f"--dtype {options.dtype}", f"there are {', '.join(DTYPES)}", "--dtype keep")
    size = options.batch_size
    why = "a batch has at least one sample"
    require(size is None or 1 <= size <= MAX_DIMENSION, f"--batch-size {size}", why, "leave it out for a dynamic batch")
    require(0 <= options.seed <= MAX_SEED, f"--seed {options.seed}", f"a seed is from 0 to {MAX_SEED}", "--seed 0")
    for flag, value in (("--atol", options.atol), ("--rtol", options.rtol)):
        require(0 <= value < math.inf, f"{flag} {value}", "a tolerance is finite and not negative", f"leave {flag} out")
    seconds = options.layout_seconds
    require(0 < seconds < math.inf, f"--layout-seconds {seconds}", "a time limit is above zero", "--layout-seconds 60")


def require(condition: bool, where: str, why: str, hint: str) -> None:
    if not condition:
        raise UsageError("cannot be used", where=where, why=why, hint=hint)


def _formats(asked: Sequence[str]) -> tuple[str, ...]:
    """In the order of the registry, each once. Raises UsageError."""
    for name in asked:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.5)
            hint = f"--to {near[0]}" if near else f"--to {','.join(FORMATS)}"
            raise UsageError(
                "is an unknown format", where=f"--to {name}", why=f"there are {', '.join(FORMATS)}", hint=hint
            )
    require(bool(asked), "--to", "no format is named", f"--to {','.join(FORMATS)}")
    for name in dict.fromkeys(asked):
        missing = [package for package in FORMATS[name].imports if importlib.util.find_spec(package) is None]
        hint = f"pip install 'export-model[{FORMATS[name].extra}]'"
        require(not missing, f"--to {name}", f"these packages are not installed: {', '.join(missing)}", hint)
    return tuple(name for name in FORMATS if name in asked)


def _weights(choice: str) -> str:
    if choice.lower() in WEIGHT_CHOICES:
        return choice.lower()
    if not os.path.exists(choice):
        near = difflib.get_close_matches(choice.lower(), WEIGHT_CHOICES, n=1)
        why = f"it is none of {', '.join(WEIGHT_CHOICES)}, and no such file exists"
        hint = f"--weights {near[0]}" if near else "check the path"
        raise UsageError("cannot be used", where=f"--weights {choice}", why=why, hint=hint)
    kinds = "give a .weights.h5, .weights.json or legacy .h5 file"
    require(os.path.isfile(choice), f"--weights {choice}", "it is not a file", kinds)
    return choice


def _size(text: str | None, flag: str, example: str) -> int | None:
    if text is None:
        return None
    try:
        size = memory.parse_bytes(text)
    except ValueError as error:
        raise UsageError("cannot be used", where=flag, why=str(error), hint=f"{flag} {example}") from error
    require(size > 0, f"{flag} {text}", "a size is above zero", f"{flag} {example}")
    return size


def _external_data(options: ExportOptions) -> str:
    choice = options.external_data
    choices = f"it is none of {', '.join(EXTERNAL_DATA_CHOICES)}"
    require(choice in EXTERNAL_DATA_CHOICES, f"--external-data {choice}", choices, "--external-data auto")
    has_files = options.shard_size is None or choice != "never"
    require(has_files, "--shard-size", "there are no data files with --external-data never", "leave one of them out")
    return choice


def _input_shapes(options: ExportOptions) -> dict[str, Shape]:
    """By input name; the key is empty for the only input of a model. Raises UsageError."""
    shapes: dict[str, Shape] = {}
    for text in options.input_shapes:
        name, shape = parse_input_shape(text)
        where = f"--input-shape {text}"
        require(name not in shapes, where, "the same input is given twice", "give each input once")
        fits = options.batch_size in (None, shape[0]) or shape[0] is None
        require(fits, where, f"its batch differs from --batch-size {options.batch_size}", "give only one of the two")
        shapes[name] = shape
    several = "" in shapes and len(shapes) > 1
    require(not several, "--input-shape", "several shapes are given and one has no name", "NAME:1,224,224,3 for each")
    return shapes


def _picture(options: ExportOptions, formats: Sequence[str]) -> PictureOptions:
    """Raises UsageError. Whether a name of --expand is in the model is known when the model has been read."""
    for flag, value, choices in (
        ("--direction", options.direction, DIRECTIONS),
        ("--theme", options.theme, THEME_NAMES),
        ("--color-by", options.color_by, COLOURINGS),
    ):
        if value not in choices:
            near = difflib.get_close_matches(value, choices, n=1) or choices
            require(False, f"{flag} {value}", f"there are {', '.join(choices)}", f"{flag} {near[0]}")
    depth, most = options.depth, options.max_nodes
    require(depth is None or depth >= 0, f"--depth {depth}", "it counts levels of blocks from 0", "--depth 1")
    require(most is None or most >= 1, f"--max-nodes {most}", "a picture has at least one box", "--max-nodes 60")
    for name in options.expand:
        why = "it is not the name of a block"
        require(bool(name) and not name.startswith("--"), f"--expand {name}", why, "--expand NAME, or --expand all")
    is_whole = ALL in options.expand
    alone = not is_whole or (depth is None and most is None)
    require(alone, f"--expand {ALL}", "it draws every layer whatever --depth and --max-nodes say", "leave them out")
    picture = PictureOptions(depth, options.expand, most, options.direction, options.theme, options.color_by)
    drawers = [name for name, entry in FORMATS.items() if entry.draws]
    has_drawer = picture == PictureOptions() or any(name in drawers for name in formats)
    why = f"options for pictures are for {', '.join(drawers)}"
    require(has_drawer, "--to", why, "add svg to --to")
    return picture
