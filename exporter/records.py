"""Plain frozen data that the rooms hand to each other; no behaviour of files, frameworks or text.

Everywhere: `None` is unknown, 0 is zero. Shapes are tuples in the framework's own axis order, `None` for a dynamic
dimension. Dtypes are NumPy names (`float32`, `bfloat16`). What there may be a million of has slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter import defaults

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An activation: what flows along an edge. `shape` is None when the rank itself is unknown."""

    name: str
    shape: Shape | None
    dtype: str | None


@dataclass(frozen=True, slots=True)
class Weight:
    """A variable of the model. `name` is unique in the model; `layer` is the namespace of the layer that owns it."""

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    trainable: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer or operation, however often it is called.

    `namespace` is the unique key: the names from the outermost model down to this layer, joined with `/`.
    `parent` is the namespace of the enclosing layer (None at depth 0). `params`, `params_trainable` and `weight_bytes`
    count the weights that this layer itself holds and that no earlier row has counted, so that the column sum over
    all rows is the model's `count_params()`; `params_total` includes the layers inside.
    `inputs` and `outputs` are those of the first call, None when unknown. `config` is JSON text.
    """

    index: int
    name: str
    class_name: str
    namespace: str
    depth: int
    parent: str | None
    trainable: bool
    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None
    params: int
    params_trainable: int
    params_total: int
    weight_bytes: int
    calls: int
    connected_to: tuple[str, ...]
    config: str


@dataclass(frozen=True, slots=True)
class Edge:
    """One tensor going from one call of a layer into one call of another; both ends are namespaces.

    Edges join siblings: layers of the same parent. The edges inside a nested model start at its input layers.
    """

    source: str
    source_call: int
    source_output: int
    target: str
    target_call: int
    target_input: int
    shape: Shape | None
    dtype: str | None


@dataclass(frozen=True)
class ModelGraph:
    """What a source tells about itself for free: no weight has been read.

    `level` says what a row of `layers` is: `layer` (one of the framework's), `scope` (operations with a common name),
    `operation`, or `tensor` (a source of weights alone, whose names make the rows).
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    edges: tuple[Edge, ...]
    weights: tuple[Weight, ...]
    level: str = "layer"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer or a node takes in one run of the model; see `exporter.costs.counting` for what is counted.

    `method` says where `macs` and `flops` come from: `layer` (a formula for the layer), `sum` (of the layers inside),
    `onnx` (of its ONNX nodes), None when they are unknown. `arithmetic_intensity` is flops per byte.
    """

    macs: int | None
    flops: int | None
    activation_bytes: int | None
    method: str | None
    arithmetic_intensity: float | None = None


@dataclass(frozen=True)
class LayerCosts:
    """The costs of all layers by namespace, and of the model.

    `macs` and `flops` are the sums over the layers of depth 0 for which they are known, None when there are none;
    `layers_without_cost` counts the others. `live_activation_bytes` are those of all layer outputs that are
    needed while a layer runs, by namespace; it is empty when the peak is unknown.
    """

    layers: Mapping[str, Cost]
    batch_size: int
    dimension: int
    layers_without_cost: int
    macs: int | None
    flops: int | None
    peak_activation_bytes: int | None
    live_activation_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """A node of the written ONNX graph. `layer` is the namespace of its layer, None when it is not known.

    `match_kind` says how the layer was found: `recorded` (the TensorFlow op was seen inside the layer's call), `scope`
    (its name lies in the scope of a recorded call), `weight` (it uses a weight of that layer), `neighbour` (taken from
    the nodes around it), `none`.
    """

    index: int
    name: str
    op_type: str
    domain: str
    namespace: str
    layer: str | None
    match_kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[Shape | None, ...]
    output_dtypes: tuple[str | None, ...]
    cost: Cost | None = None


@dataclass(frozen=True)
class StoredTensor:
    """Where a weight is in the ONNX files.

    `transform` is `none` (the same bytes), `layout` (transposed or reshaped), `cast` (to another dtype, perhaps also
    transposed or reshaped) or `folded` (combined with other weights). `dtype` is that of the initializer. `data_file`
    and `data_offset` are None when the bytes are inside the `.onnx` file itself.
    """

    weight: str
    initializer: str
    transform: str
    dtype: str
    data_file: str | None
    data_offset: int | None
    data_nbytes: int


@dataclass(frozen=True)
class TensorStatistics:
    """What `--stats` finds out about a weight: the columns of tensors.parquet from `min` on, described there."""

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    l2_norm: float | None = None
    zeros: int | None = None
    near_zeros: int | None = None
    nans: int | None = None
    infs: int | None = None
    dead_filters: int | None = None
    distinct: int | None = None
    quantiles: tuple[float, ...] | None = None
    histogram_edges: tuple[float, ...] | None = None
    histogram_counts: tuple[int, ...] | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class PictureOptions:
    """What is drawn of a model, and how; `exporter.formats.pictures` says what each value does.

    `depth` and `max_nodes` are None where the picture shall fit a page by itself. `expand` holds names or patterns of
    blocks whose inside is drawn; `all` in it means that nothing is folded.
    """

    depth: int | None = None
    expand: tuple[str, ...] = ()
    max_nodes: int | None = None
    direction: str = defaults.DIRECTIONS[0]
    theme: str = defaults.THEME_NAMES[0]
    color_by: str = defaults.COLOURINGS[0]


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be read, where it leaves a choice.

    `signature` and `tag` are of a SavedModel, empty for the usual ones; `inputs` and `outputs` name tensors of a graph
    that does not say which are its own; `custom_objects` are modules or files with classes of Keras. `seen` says what
    the content looks like where the user says that it is of another kind. `arguments` are what a factory is called
    with, by name: values that JSON has.
    """

    signature: str = ""
    tag: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    custom_objects: tuple[str, ...] = ()
    dequantize: bool = False
    seen: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a source comes from that is fetched before it is read.

    `address` is complete, with what may be secret in it, until it has been fetched; `name` is what may be shown.
    `kind` is that of `--source-kind`, and `chosen_formats` says whether the user has chosen any. `nbytes` is None where
    the store does not say; `version` changes with the content, and is empty where the store does not tell.
    """

    address: str
    name: str
    kind: str = ""
    nbytes: int | None = None
    version: str = ""
    chosen_formats: bool = False


# What `Job.weights` may be other than the path of a file.
WEIGHT_CHOICES = ("auto", "imagenet", "random")


@dataclass(frozen=True)
class Job:
    """One model to export, complete: the worker needs nothing else.

    `source_digest` is empty where finding it means reading a large file: the worker does that beside its work.
    `origin` is of a source that is not on this machine: `source` is then its name and, once fetched, the path here.
    `against` is the path of an ONNX file that is compared with the source, and then nothing is written.
    `unless_done`: nothing is to be done where the result is there when its folder is free.
    `is_alone`: no other job is under way on this machine, as far as this program knows.
    `dtype` is what weights are stored and computed in: `keep` (the source's), `float32` or `float16`.
    """

    source: str
    kind: str
    name: str
    output_path: str
    formats: tuple[str, ...]
    fingerprint: str
    source_digest: str
    weights: str = "auto"
    seed: int = 0
    opset: int = defaults.OPSET
    dtype: str = defaults.DTYPES[0]
    batch_size: int | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    verify: bool = True
    atol: float = defaults.ATOL
    rtol: float = defaults.RTOL
    max_memory_bytes: int | None = None
    external_data: str = defaults.EXTERNAL_DATA_CHOICES[0]
    shard_size_bytes: int | None = None
    trust_code: bool = False
    layout_seconds: float = defaults.LAYOUT_SECONDS
    stats: bool = False
    picture: PictureOptions = PictureOptions()
    reading: SourceOptions = SourceOptions()
    against: str = ""
    origin: Origin | None = None
    is_alone: bool = False
    unless_done: bool = False


@dataclass(frozen=True)
class Stage:
    """One step of a job. `peak_rss_bytes` is the highest resident set of its process until the step's end."""

    name: str
    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class OutputDifference:
    """Source against ONNX Runtime for one output.

    `max_abs` is the largest difference of two elements, `max_rel` that divided by the source's largest magnitude in
    this output, `limit` what `max_abs` may be: atol + rtol × that magnitude.
    """

    output: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    limit: float


@dataclass(frozen=True)
class Verification:
    """`status` is `passed`, `mismatch` or `skipped`; `reason` says why, or what weakens a pass.

    `needed_bytes` is the estimate of what it takes, `peak_rss_bytes` what its largest process took.
    """

    status: str
    reason: str = ""
    needed_bytes: int | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    outputs: tuple[OutputDifference, ...] = ()


@dataclass(frozen=True)
class WrittenFile:
    """A finished artifact; `name` is relative to the export's folder."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What became of a job. `status` is `done`, `skipped` (already there), `mismatch` or `failed`.

    `peak_rss_bytes` is that of the worker process; `tree_peak_rss_bytes` the highest sum over it and its children
    that the watching parent saw. `error` is `ExportError.as_record()`. `notes` are sentences the user must see.
    """

    name: str
    status: str
    output_path: str = ""
    weights: str = ""
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    tree_peak_rss_bytes: int = 0
    stages: tuple[Stage, ...] = ()
    files: tuple[WrittenFile, ...] = ()
    verification: Verification | None = None
    notes: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Material:
    """All that a format may write from. `nodes` and `stored` are None when no ONNX file is made in this run.

    `source` is its name without the folders that lead to it, `weights` says where they come from, `versions` are those
    of libraries. `verification` is known last; `costs` are counted when there will be tables. `statistics` are by the
    weight's name, empty without `--stats`. `hollow` is the ONNX `ModelProto` without weights, where a format needs it
    and the model can be converted.
    """

    job: Job
    graph: ModelGraph
    nodes: tuple[OnnxNode, ...] | None = None
    stored: tuple[StoredTensor, ...] | None = None
    source: str = ""
    weights: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    verification: Verification | None = None
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)
    costs: LayerCosts | None = None
    hollow: Any = None
