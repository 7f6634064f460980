"""The floor plan holds: a room imports lower floors only, and what is dangerous happens in one place.

Only the text of the modules is read, imports inside functions and `if TYPE_CHECKING` included. A new module goes into
a room here first: that is the moment to ask where it belongs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import exporter

# From the top down. Each floor has rooms, each room has modules of the package (`*` matches a rest of the name; what
# is in a folder belongs to the folder's room). Rooms on one floor do not know each other.
FLOORS: list[dict[str, list[str]]] = [
    {"notebook": ["notebook"]},
    {
        "cli": [
            "__main__",
            "early_start",
            "cli",
            "commands",
            "console",
            "session",
            "batch_session",
            "summary",
            "displays",
        ]
    },
    {"reports": ["reports"]},
    {
        "plan": ["plan", "options", "config"],
        "batch": ["batch", "supervisor", "child_process", "fork_*"],
        "query": ["query"],
        "diff": ["diff"],
        "view": ["view"],
    },
    {"worker": ["worker", "work", "opening", "receipts", "resuming", "reporting"]},
    {"verification": ["verification"], "readers": ["readers"]},
    {"sources": ["sources"], "formats": ["formats"]},
    {"networks": ["networks"]},
    {"stored": ["stored"], "storage": ["storage"]},
    {
        "files": ["files", "private_folder"],
        "memory": ["memory"],
        "startup": ["startup", "heartbeat"],
        "lazy": ["lazy", "structure", "graph_limits"],
        "wire": ["wire"],
        "schema": ["schema"],
        "protobuf": ["protobuf"],
        "unique_names": ["unique_names"],
        "costs": ["costs"],
        "statistics": ["statistics", "tensor_statistics", "suspicions"],
    },
    {"records": ["records"]},
    {"errors": ["errors"], "defaults": ["defaults"]},
]

# The room that may import a library, where there is only one.
HOMES = {
    "tensorflow": "sources",
    "keras": "sources",
    "tf2onnx": "sources",
    "onnxruntime": "verification",
    "click": "cli",
    "rich": "cli",
    "ray": "batch",
}
# Where copies of a process begin and end: after a `fork` nothing may return into what the original was doing.
FORKING = ("exporter.fork_server", "exporter.verification.understudy")
# Opens files for writing, too, but none of this machine.
UPLOADS = "exporter.storage.objects"
TENSORFLOW = ("tensorflow", "keras", "tf2onnx")

WRITE_MODE = re.compile(r"[rbt]*[wax+][rwaxbt+]*")
ROOT = Path(exporter.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def place(module: str) -> tuple[int, str]:
    """Floor (0 is the top) and room of `exporter.…`; LookupError for a module that has no room yet."""
    for floor, rooms in enumerate(FLOORS):
        for room, patterns in rooms.items():
            if any(fnmatch(module.split(".")[1], pattern) for pattern in patterns):
                return floor, room
    raise LookupError(f"{module} is in no room: give it one in FLOORS")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what is imported; a name that is not a module stands for the module it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield node.lineno, full if full in MODULES else source


def import_faults(module: str, tree: ast.AST) -> Iterator[str]:
    floor, room = place(module)
    for line, name in imports(tree):
        library = name.split(".")[0]
        if not library:
            yield f"{module}:{line} imports by a relative name"
        elif library == "exporter" and name != "exporter":
            other_floor, other_room = place(name)
            if other_floor < floor:
                yield f"{module}:{line} imports {name}: {other_room} is above {room}"
            elif other_floor == floor and other_room != room:
                yield f"{module}:{line} imports {name}: {other_room} and {room} are on one floor"
        elif HOMES.get(library, room) != room:
            yield f"{module}:{line} imports {library}: only {HOMES[library]} may"


def call_faults(module: str, tree: ast.AST) -> Iterator[str]:
    """Files written past `exporter.files`, and text or exits past the command line."""
    _, room = place(module)
    exits_allowed = {id(node) for block in main_blocks(tree) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if room != "files" and module != UPLOADS and isinstance(node, ast.Call) and is_write(node):
            yield f"{module}:{node.lineno} writes a file: use exporter.files"
        if room != "cli" and isinstance(node, ast.Call) and called(node) == "print":
            yield f"{module}:{node.lineno} prints: raise, or return it"
        if room != "cli" and module not in FORKING and id(node) not in exits_allowed and is_exit(node):
            yield f"{module}:{node.lineno} exits: raise an ExportError"  # type: ignore[attr-defined]


def called(node: ast.Call) -> str:
    """`open`, `sys.exit`, `.write_text` for a method of something that has no plain name."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return f"{function.value.id if isinstance(function.value, ast.Name) else ''}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def is_write(node: ast.Call) -> bool:
    method = called(node).split(".")[-1]
    values = [*node.args, *(keyword.value for keyword in node.keywords)]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return method in ("write_text", "write_bytes") or (method == "open" and any(map(WRITE_MODE.fullmatch, texts)))


def is_exit(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return "SystemExit" in ast.unparse(node)
    return isinstance(node, ast.Call) and called(node) in ("sys.exit", "os._exit", "exit", "quit")


def main_blocks(tree: ast.AST) -> list[ast.If]:
    """`if __name__ == "__main__"`: the end of a child process, which may set its exit status."""
    body = tree.body if isinstance(tree, ast.Module) else []
    return [node for node in body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]


def faults(module: str, source: str) -> list[str]:
    tree = ast.parse(source)
    return [*import_faults(module, tree), *call_faults(module, tree)]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "exporter"])
def test_a_module_keeps_to_the_floor_plan(module: str) -> None:
    assert faults(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_the_package_itself_imports_none_of_its_rooms() -> None:
    """But when `exporter.open_catalogue` and the like are asked for, and for type checkers."""
    tree = ast.parse(MODULES["exporter"].read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [name for node in at_once for _, name in imports(node)]
    assert [name for name in names if name.startswith("exporter.")] == []
    assert {name for _, name in imports(tree) if name.startswith("exporter.")} == {
        "exporter.query.catalogue",
        "exporter.networks.graph",
        "exporter.notebook",
    }


def test_nothing_that_the_command_line_imports_reaches_tensorflow() -> None:
    """At any distance, imports inside functions included: the parent process must not even be able to."""
    reached, left = set(), ["exporter.__main__"]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += (
                [found for _, found in imports(ast.parse(MODULES[name].read_text("utf-8")))] if name in MODULES else []
            )
    assert "exporter.cli" in reached
    assert [name for name in reached if name.split(".")[0] in TENSORFLOW] == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("exporter.files", "from exporter.plan import plan", "plan is above files"),
        ("exporter.records", "import exporter.files", "files is above records"),
        ("exporter.plan", "from exporter import batch", "batch and plan are on one floor"),
        (
            "exporter.formats.x",
            "def f():\n    from exporter.sources import hollow",
            "sources and formats are on one floor",
        ),
        ("exporter.formats.x", "from . import levels", "relative"),
        ("exporter.worker", "import tensorflow.python as tfp", "only sources may"),
        ("exporter.worker", "from keras import layers", "only sources may"),
        ("exporter.formats.x", "if TYPE_CHECKING:\n    import tf2onnx", "only sources may"),
        ("exporter.worker", "import onnxruntime", "only verification may"),
        ("exporter.plan", "import click", "only cli may"),
        ("exporter.worker", "from rich.table import Table", "only cli may"),
        ("exporter.worker", "open(path, 'w')", "writes a file"),
        ("exporter.worker", "open(path, mode='xb')", "writes a file"),
        ("exporter.worker", "Path(name).open('ab')", "writes a file"),
        ("exporter.worker", "open(path, 'r+b')", "writes a file"),
        ("exporter.worker", "(folder / 'a').write_text('text')", "writes a file"),
        ("exporter.formats.x", "path.write_bytes(data)", "writes a file"),
        ("exporter.formats.x", "print('hello')", "prints"),
        ("exporter.worker", "def f():\n    sys.exit(1)", "exits"),
        ("exporter.worker", "raise SystemExit(1)", "exits"),
    ],
)
def test_a_fault_is_found(module: str, source: str, fault: str) -> None:
    found = faults(module, source)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exporter.plan", "from exporter.sources import detection\nfrom exporter import __version__"),
        (
            "exporter.sources.x",
            "import keras\nfrom exporter.sources.keras_models.hollow import HollowScope\nimport onnx",
        ),
        ("exporter.verification.child", "import onnxruntime"),
        ("exporter.cli", "import click\nprint(1)\nsys.exit(2)"),
        ("exporter.worker", "if __name__ == '__main__':\n    sys.exit(main())"),
        ("exporter.files", "open(path, 'wb')"),
        ("exporter.worker", "open(path)\nopen(path, 'rb')\narchive.open('tree')\npath.open('rb').close()"),
    ],
)
def test_what_is_allowed_is_no_fault(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_a_module_without_a_room_is_a_fault() -> None:
    with pytest.raises(LookupError, match="utils"):
        faults("exporter.utils", "")
