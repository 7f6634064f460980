"""Products that are written as `Einsum`, such as the scores of attention, as `MatMul`, which runtimes optimise."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.sources.rewriting.onnx_editor import Editor, Node


def split_einsums(editor: Editor) -> None:
    """In place. An equation that is more than one product of (stacks of) matrices stays what it is."""
    for node in editor.nodes():
        if node.op_type == "Einsum" and not node.domain and len(node.inputs) == 2:
            product = _product(node)
            if product is not None:
                _replace(editor, node, product)


@dataclass(frozen=True)
class Product:
    """A matrix product in letters of the equation, each of one axis.

    `left` and `right` are what the operands `first` and `second` of the node have to be for it, `result` is what it
    gives; `given` and `wanted` are the equation's.
    """

    first: int
    second: int
    left: str
    right: str
    result: str
    given: tuple[str, str]
    wanted: str


def _product(node: Node) -> Product | None:
    operands, arrow, wanted = node.get("equation").decode().replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2 or "." in operands:
        return None
    if any(len(set(term)) != len(term) for term in (*terms, wanted)):
        return None
    found = [product for order in ((0, 1), (1, 0)) if (product := _ordered(terms, order, wanted)) is not None]
    # The order of the operands decides in which order the axes come out.
    return min(found, key=lambda product: product.result != wanted, default=None)


def _ordered(terms: list[str], order: tuple[int, int], wanted: str) -> Product | None:
    a, b = (terms[place] for place in order)
    batch = "".join(letter for letter in wanted if letter in a and letter in b)
    rows = "".join(letter for letter in wanted if letter in a and letter not in b)
    columns = "".join(letter for letter in wanted if letter in b and letter not in a)
    summed = "".join(letter for letter in a if letter in b and letter not in wanted)
    if len(columns) != 1 or len(summed) != 1 or not rows or (batch and len(rows) != 1):
        return None
    left, right = batch + rows + summed, batch + summed + columns
    if set(left) != set(a) or set(right) != set(b):
        return None
    return Product(*order, left, right, batch + rows + columns, (terms[0], terms[1]), wanted)


def _replace(editor: Editor, node: Node, product: Product) -> None:
    sizes: dict[str, int | str | None] = {}
    for term, name in zip(product.given, node.inputs, strict=True):
        dims = editor.dims(name)
        sizes.update(zip(term, dims, strict=True) if dims is not None else {})
    dtype = editor.dtype(node.inputs[0])

    def transposed(name: str, given: str, wanted: str) -> str:
        if given == wanted:
            return name
        made = editor.add_node("Transpose", [name], node, perm=[given.index(letter) for letter in wanted]).outputs[0]
        if dtype is not None:
            editor.set_type(made, dtype, [sizes.get(letter) for letter in wanted])
        return made

    operands = [
        transposed(node.inputs[place], product.given[place], wanted)
        for place, wanted in ((product.first, product.left), (product.second, product.right))
    ]
    editor.remove(node)
    if product.result == product.wanted:
        editor.add_node("MatMul", operands, node, node.outputs)
        return
    result = editor.add_node("MatMul", operands, node).outputs[0]
    if dtype is not None:
        editor.set_type(result, dtype, [sizes.get(letter) for letter in product.result])
    order = [product.result.index(letter) for letter in product.wanted]
    editor.add_node("Transpose", [result], node, node.outputs, perm=order)
