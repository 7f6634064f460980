"""The tables of the catalogue, as `pyarrow` schemas: public, versioned, every field with its description and unit.

NULL means unknown, 0 means zero. `docs/catalogue.md` is made from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

SCHEMA_VERSION = "2"


LEVELS = (
    "what a row of layers is: layer (one of the framework's), scope (operations with a common name), operation, "
    "tensor (a source of weights alone); NULL in tables of schema version 1"
)


def _list_of(kind: pa.DataType) -> pa.DataType:
    """A list whose elements may be NULL, with the name that the Parquet specification gives them."""
    return pa.list_(pa.field("element", kind))


TEXT, INTEGER, NUMBER, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TEXTS, SHAPE, SHAPES = _list_of(TEXT), _list_of(INTEGER), _list_of(_list_of(INTEGER))
COUNTS, NUMBERS = _list_of(INTEGER), _list_of(NUMBER)
BY_DTYPE = _list_of(pa.struct([("dtype", TEXT), ("params", INTEGER), ("nbytes", INTEGER)]))


def _known(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"description": description})


def _unknowable(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=True, metadata={"description": description})


def _schema(table: str, fields: Iterable[pa.Field]) -> pa.Schema:
    model = _known("model", TEXT, "name of the model, that of its folder; key into models")
    metadata = {"export_model.schema_version": SCHEMA_VERSION, "export_model.table": table}
    return pa.schema([model, *fields], metadata=metadata)


MODELS = _schema(
    "models",
    [
        _known("name", TEXT, "the model's own name"),
        _known("source", TEXT, "what was exported: a file's name without folders, or a name in keras.applications"),
        _known("kind", TEXT, "kind of source"),
        _known("source_digest", TEXT, "SHA-256 of the source; of a zip archive, that of its directory with the CRCs"),
        _known("weights", TEXT, "where the weights come from"),
        _unknowable("level", TEXT, LEVELS),
        _unknowable("opset", INTEGER, "ONNX opset; NULL when there is no ONNX graph"),
        _known("layers", INTEGER, "rows in layers"),
        _known("tensors", INTEGER, "rows in tensors"),
        _known("edges", INTEGER, "rows in edges"),
        _unknowable("nodes", INTEGER, "rows in nodes; NULL when there is no ONNX graph"),
        _unknowable("nodes_with_layer", INTEGER, "nodes whose layer is known; NULL when there is no ONNX graph"),
        _known("params", INTEGER, "elements of all weights"),
        _known("params_trainable", INTEGER, "the part of params that is trainable"),
        _known("weight_bytes", INTEGER, "bytes of all weights in the source"),
        _known("weights_by_dtype", BY_DTYPE, "params and nbytes of each NumPy dtype of the source"),
        _known("cost_batch_size", INTEGER, "what stands for a dynamic batch in costs"),
        _known("cost_dimension", INTEGER, "what stands for any other dynamic dimension in costs"),
        _known(
            "layers_without_cost", INTEGER, "layers of depth 0 whose macs are NULL; they are missing in macs and flops"
        ),
        _unknowable("macs", INTEGER, "multiply-accumulate operations of one run; NULL when no layer's are known"),
        _unknowable("flops", INTEGER, "floating-point operations of one run; NULL when no layer's are known"),
        _unknowable(
            "peak_activation_bytes", INTEGER, "most bytes of layer outputs that are needed at once, layers run in order"
        ),
        _known("verification", TEXT, "passed, mismatch, skipped; none when there is no ONNX graph"),
        _unknowable("verification_reason", TEXT, "why it was skipped, or what weakens a pass"),
        _unknowable("max_abs_difference", NUMBER, "largest difference of an output element, source to ONNX Runtime"),
        _known("export_model_version", TEXT, "version of this tool"),
        _unknowable("tensorflow_version", TEXT, "version of TensorFlow"),
        _unknowable("keras_version", TEXT, "version of Keras"),
        _unknowable("tf2onnx_version", TEXT, "version of tf2onnx; NULL when there is no ONNX graph"),
        _unknowable("onnx_version", TEXT, "version of onnx; NULL when there is no ONNX graph"),
    ],
)
LAYERS = _schema(
    "layers",
    [
        _known("index", INTEGER, "position in the model's own order, depth first, from 0"),
        _known("layer", TEXT, "the key: names from the outermost model down to the layer, joined with /"),
        _known("name", TEXT, "the layer's name, unique among its siblings"),
        _known("class", TEXT, "the layer's Python class"),
        _unknowable("level", TEXT, LEVELS),
        _known("depth", INTEGER, "number of enclosing layers below the model"),
        _unknowable("parent", TEXT, "key of the enclosing layer; NULL at depth 0"),
        _known("trainable", FLAG, "whether the layer is set to be trainable"),
        _unknowable("input_shapes", SHAPES, "one shape for each input of the first call; a NULL dimension is dynamic"),
        _unknowable(
            "output_shapes", SHAPES, "one shape for each output of the first call; a NULL dimension is dynamic"
        ),
        _unknowable("input_dtypes", TEXTS, "NumPy dtype of each input of the first call"),
        _unknowable("output_dtypes", TEXTS, "NumPy dtype of each output of the first call"),
        _known("params", INTEGER, "elements of the weights first held here; the sum over all rows is count_params()"),
        _known("params_trainable", INTEGER, "the part of params that is trainable"),
        _known("params_total", INTEGER, "elements of the weights held here and in the layers inside"),
        _known("weight_bytes", INTEGER, "bytes of the weights that params counts"),
        _known("calls", INTEGER, "calls in the graph of the enclosing model; 0 inside layers that have no graph"),
        _known("connected_to", TEXTS, "keys of the layers whose outputs this one takes"),
        _unknowable(
            "macs", INTEGER, "multiply-accumulate operations of all calls, those of the layers inside included"
        ),
        _unknowable("flops", INTEGER, "floating-point operations of all calls, those of the layers inside included"),
        _unknowable("activation_bytes", INTEGER, "bytes of the outputs of all calls"),
        _unknowable("arithmetic_intensity", NUMBER, "flops per byte of inputs, outputs and weights, each counted once"),
        _unknowable("cost_method", TEXT, "where macs and flops come from; NULL when they are unknown"),
        _known("config", TEXT, "the layer's settings as JSON; {} when it cannot say"),
        _unknowable(
            "onnx_nodes", TEXTS, "names of the ONNX nodes made of this layer; NULL when there is no ONNX graph"
        ),
    ],
)
TENSORS = _schema(
    "tensors",
    [
        _known("layer", TEXT, "the layer that holds the weight; key into layers"),
        _known("tensor", TEXT, "the key: name of the weight, unique in the model"),
        _known("shape", SHAPE, "shape in the framework's axis order"),
        _known("dtype", TEXT, "NumPy dtype"),
        _known("nbytes", INTEGER, "bytes of the weight in the source"),
        _known("trainable", FLAG, "whether training changes the weight"),
        _unknowable("initializer", TEXT, "the ONNX initializer that holds it, the least changed one; NULL when none"),
        _unknowable(
            "transform",
            TEXT,
            "none (same bytes), layout (transposed or reshaped), cast (another dtype) or folded (combined with others)",
        ),
        _unknowable("stored_dtype", TEXT, "NumPy dtype of the initializer"),
        _unknowable("data_file", TEXT, "file with the initializer's bytes; NULL when they are inside the .onnx file"),
        _unknowable("data_offset", INTEGER, "bytes from the start of data_file"),
        _unknowable("data_nbytes", INTEGER, "bytes of the initializer"),
        _unknowable("initializers", TEXTS, "all ONNX initializers that it went into; NULL when there is no ONNX graph"),
        _unknowable("min", NUMBER, "smallest finite element; this and all that follows is NULL without --stats"),
        _unknowable("max", NUMBER, "largest finite element"),
        _unknowable("mean", NUMBER, "mean of the finite elements"),
        _unknowable("std", NUMBER, "standard deviation of the finite elements (divided by their number)"),
        _unknowable("l2_norm", NUMBER, "square root of the sum of squares of the finite elements"),
        _unknowable("zeros", INTEGER, "elements that are zero"),
        _unknowable(
            "near_zeros", INTEGER, "elements that are not zero and at most 1e-6 of the largest magnitude, about"
        ),
        _unknowable("nans", INTEGER, "elements that are not a number"),
        _unknowable("infs", INTEGER, "elements that are plus or minus infinity"),
        _unknowable(
            "dead_filters", INTEGER, "output channels (last axis of two or more) all of whose elements are zero"
        ),
        _unknowable("distinct", INTEGER, "number of distinct elements; NULL when there are more than 256"),
        _unknowable("quantiles", NUMBERS, "at 0.01, 0.05, 0.25, 0.5, 0.75, 0.95 and 0.99, within 0.4 % of the value"),
        _unknowable("histogram_edges", NUMBERS, "edges of the histogram's bins, one more than there are counts"),
        _unknowable(
            "histogram_counts", COUNTS, "finite elements in each bin; one within 0.4 % of an edge may be beyond it"
        ),
        _unknowable("sha256", TEXT, "SHA-256 of the elements in C order, little-endian"),
    ],
)
EDGES = _schema(
    "edges",
    [
        _known("source", TEXT, "the layer that makes the tensor; key into layers"),
        _known("source_call", INTEGER, "which call of the source, from 0"),
        _known("source_output", INTEGER, "which output of that call, from 0"),
        _known("target", TEXT, "the layer that takes the tensor; key into layers"),
        _known("target_call", INTEGER, "which call of the target, from 0"),
        _known("target_input", INTEGER, "which input of that call, from 0"),
        _unknowable("shape", SHAPE, "shape of the tensor; a NULL dimension is dynamic"),
        _unknowable("dtype", TEXT, "NumPy dtype of the tensor"),
    ],
)
NODES = _schema(
    "nodes",
    [
        _known("index", INTEGER, "position in the ONNX graph, from 0"),
        _known("node", TEXT, "the key: name of the node"),
        _known("op_type", TEXT, "ONNX operator"),
        _known("domain", TEXT, "operator set; empty for ONNX's own"),
        _known("namespace", TEXT, "where viewers show the node, names joined with /"),
        _unknowable("layer", TEXT, "the layer that it was made of; key into layers"),
        _known("match_kind", TEXT, "how layer was found: recorded, scope, weight, neighbour or none"),
        _known("inputs", TEXTS, "names of its input tensors; empty text for one left out"),
        _known("outputs", TEXTS, "names of its output tensors"),
        _known("output_shapes", SHAPES, "one shape for each output, NULL when unknown; a NULL dimension is dynamic"),
        _known("output_dtypes", TEXTS, "NumPy dtype of each output, NULL when unknown"),
        _unknowable("macs", INTEGER, "multiply-accumulate operations of one run"),
        _unknowable("flops", INTEGER, "floating-point operations of one run"),
        _unknowable("activation_bytes", INTEGER, "bytes of the outputs"),
        _unknowable("cost_method", TEXT, "where macs and flops come from; NULL when they are unknown"),
    ],
)
SCHEMAS = {"models": MODELS, "layers": LAYERS, "tensors": TENSORS, "edges": EDGES, "nodes": NODES}

# A table of its own: a row is a model of a batch, whether it was exported or not, and it has no folder with a receipt.
MOMENT = pa.timestamp("us", tz="UTC")
FILES = _list_of(pa.struct([("name", TEXT), ("nbytes", INTEGER)]))
BATCH = _schema(
    "batch",
    [
        _known(
            "source", TEXT, "what was to be exported: a file's name without folders, or a name in keras.applications"
        ),
        _unknowable("kind", TEXT, "kind of source; NULL when it is not known"),
        _known(
            "status",
            TEXT,
            "done, mismatch (exported, and differs from its source), failed, skipped (up to date from an earlier run), "
            "not run (the batch ended before)",
        ),
        _unknowable("status_code", INTEGER, "exit status that the model alone would have had; NULL when not run"),
        _unknowable("error_type", TEXT, "class of the error; this and the four that follow are NULL without one"),
        _unknowable("error_what", TEXT, "what happened"),
        _unknowable("error_where", TEXT, "file, layer or operation where it happened"),
        _unknowable("error_why", TEXT, "why it happened"),
        _unknowable("error_hint", TEXT, "what to try next"),
        _known("attempts", INTEGER, "how often it was tried in this run; 0 when skipped or not run"),
        _unknowable("started", MOMENT, "when the last attempt started; NULL when there was none in this run"),
        _unknowable("seconds", NUMBER, "time that the last attempt took; of the earlier run when skipped"),
        _unknowable("waited_seconds", NUMBER, "time between the start of the batch and the first attempt"),
        _unknowable("peak_rss_bytes", INTEGER, "most memory of the worker process; of the earlier run when skipped"),
        _unknowable("tree_peak_rss_bytes", INTEGER, "most memory of the worker and its children together"),
        _unknowable("need_bytes", INTEGER, "the estimate of that before the start, which admission counts with"),
        _unknowable(
            "verification",
            TEXT,
            "passed, mismatch, skipped (not compared); none when there is no ONNX file; NULL without an export",
        ),
        _unknowable("verification_reason", TEXT, "why it was skipped, or what weakens a pass"),
        _unknowable("max_abs_difference", NUMBER, "largest difference of an output element, source to ONNX Runtime"),
        _unknowable("weights", TEXT, "where the weights come from"),
        _unknowable("params", INTEGER, "elements of all weights"),
        _unknowable("weight_bytes", INTEGER, "bytes of all weights in the source"),
        _unknowable("layers", INTEGER, "number of layers"),
        _unknowable("onnx_nodes", INTEGER, "number of ONNX nodes; NULL when there is no ONNX graph"),
        _known(
            "files", FILES, "name and size of each file in the model's folder but the receipt; empty without an export"
        ),
        _known("output_bytes", INTEGER, "sum of the sizes of files"),
        _known("notes", TEXTS, "sentences that the export had to say"),
        _unknowable("fingerprint", TEXT, "what the receipt is compared with to see whether the model is up to date"),
        _unknowable("source_digest", TEXT, "SHA-256 of the source; NULL without an export"),
        _known("export_model_version", TEXT, "version of this tool; the one that exported it when skipped"),
        _unknowable("tensorflow_version", TEXT, "version of TensorFlow"),
        _unknowable("keras_version", TEXT, "version of Keras"),
        _unknowable("tf2onnx_version", TEXT, "version of tf2onnx; NULL when there is no ONNX graph"),
        _unknowable("onnx_version", TEXT, "version of onnx; NULL when there is no ONNX graph"),
    ],
)
# What can be asked in SQL.
TABLES = SCHEMAS | {"batch": BATCH}
