"""Weights without bytes, in valid ONNX: sparse tensors of the weight's shape and type that hold nothing."""

from __future__ import annotations

from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto

from exporter.formats.view_model.flat import bodies, constant_value, elements

# What is not larger stays as it is: shapes, axes and scalars say what a node does.
SMALL_NBYTES = 1024
CONTENT = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


# Of these, a tensor of more than one element is a weight, however small.
FLOATING = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


def is_small(proto: TensorProto) -> bool:
    """Whether a tensor stays whole: it has all of its content, little of it, and is no weight."""
    return elements(proto) == 0 or (
        proto.data_location != TensorProto.EXTERNAL
        and (elements(proto) == 1 or proto.data_type not in FLOATING)
        and any(len(getattr(proto, name)) for name in CONTENT)
        and proto.ByteSize() <= SMALL_NBYTES + 2 * len(proto.name)
    )


def shape_only(proto: TensorProto, name: str) -> SparseTensorProto:
    """A scalar gets one dimension, because a sparse tensor has one at least."""
    sparse = SparseTensorProto(dims=list(proto.dims) or [1])
    sparse.values.name, sparse.values.data_type = name, proto.data_type
    sparse.values.dims.append(0)
    sparse.indices.data_type = TensorProto.INT64
    sparse.indices.dims.append(0)
    return sparse


def constant(proto: TensorProto, name: str, output: str) -> NodeProto:
    """A `Constant` node: Netron draws it as a row in the box that reads it."""
    node = NodeProto(op_type="Constant", name=output, output=[output])
    if is_small(proto):
        attribute = node.attribute.add(name="value", type=AttributeProto.TENSOR)
        attribute.t.CopyFrom(proto)
        attribute.t.name = name
    else:
        attribute = node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
        attribute.sparse_tensor.CopyFrom(shape_only(proto, name))
    return node


def add_initializer(graph: GraphProto, proto: TensorProto, name: str) -> None:
    if is_small(proto):
        graph.initializer.add().CopyFrom(proto)
        graph.initializer[-1].name = name
    else:
        graph.sparse_initializer.add().CopyFrom(shape_only(proto, name))


def emptied_constant(node: NodeProto) -> NodeProto:
    """`emptied`, where the node may be a `Constant`: its value keeps its shape."""
    value = constant_value(node)
    large = value is not None and not is_small(value)
    return constant(value, node.output[0], node.output[0]) if value is not None and large else emptied(node)


def emptied(node: NodeProto) -> NodeProto:
    """A copy of the node without large tensors, in the loops and branches inside it neither."""
    copy = NodeProto()
    copy.CopyFrom(node)
    _empty(copy)
    return copy


def _empty(node: NodeProto) -> None:
    for attribute in node.attribute:
        for tensor in (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors:
            if not is_small(tensor):
                tensor.CopyFrom(TensorProto(data_type=tensor.data_type, dims=[0], name=tensor.name))
    for body in bodies(node):
        large = [proto for proto in body.initializer if not is_small(proto)]
        small = [proto for proto in body.initializer if is_small(proto)]
        body.sparse_initializer.extend(shape_only(proto, proto.name) for proto in large)
        kept = [TensorProto.FromString(proto.SerializeToString()) for proto in small]
        del body.initializer[:]
        body.initializer.extend(kept)
        for inner in body.node:
            inner.CopyFrom(emptied_constant(inner))
