"""Einstein sums as one `MatMul` between `Transpose`s, where that is all they are.

tf2onnx computes shapes in the graph for each: some thirty nodes for the two products of an attention layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import math


@dataclass(frozen=True)
class Product:
    """A sum over one axis as a matrix product: how each side, and then the result, has to be permuted."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    result: tuple[int, ...]


def as_product(equation: str) -> Product | None:
    """How to compute a two-sided equation, with an output, by `matmul`; None where that takes more than permutations.

    `BTNH,BSNH->BNTS`: the axes of both sides and the result are batch axes, the one that the result lacks is summed,
    and each side has one axis of its own. The left side may have several when there are no batch axes.
    """
    terms, _, out = equation.replace(" ", "").partition("->")
    sides = terms.split(",")
    if len(sides) != 2 or not out or not all(_is_plain(term) for term in (*sides, out)):
        return None
    a, b = sides
    batch = [axis for axis in out if axis in a and axis in b]
    left = [axis for axis in out if axis in a and axis not in b]
    right = [axis for axis in out if axis in b and axis not in a]
    summed = [axis for axis in a if axis in b and axis not in out]
    if set(a) | set(b) != {*batch, *left, *right, *summed} or len(summed) != 1 or len(right) != 1:
        return None
    if not left or (batch and len(left) > 1):
        return None
    return Product(
        _permutation(a, [*batch, *left, *summed]),
        _permutation(b, [*batch, *summed, *right]),
        _permutation([*batch, *left, *right], out),
    )


def _is_plain(term: str) -> bool:
    return term.isalpha() and len(set(term)) == len(term)


def _permutation(labels: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    return tuple(labels.index(label) for label in wanted)


@handler.tf_op("Einsum")
class Einsum:
    @classmethod
    def version_12(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        product = as_product(node.get_attr_value("equation").decode())
        if product is None:
            math.Einsum.version_12(graph, node, **kwargs)
            return
        shapes, dtypes, outputs, inputs = node.output_shapes, node.output_dtypes, node.output, node.input
        graph.remove_node(node.name)
        sides = [
            _permuted(graph, node, value, permutation)
            for value, permutation in zip(inputs, (product.left, product.right), strict=True)
        ]
        if product.result == tuple(sorted(product.result)):
            graph.make_node("MatMul", sides, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)
            return
        result = graph.make_node("MatMul", sides, name=node.child_name(), dtypes=dtypes).output[0]
        attributes = {"perm": list(product.result)}
        graph.make_node(
            "Transpose", [result], attributes, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes
        )


def _permuted(graph: Graph, node: Node, value: str, permutation: tuple[int, ...]) -> str:
    if permutation == tuple(sorted(permutation)):
        return value
    return graph.make_node("Transpose", [value], {"perm": list(permutation)}, name=node.child_name()).output[0]
