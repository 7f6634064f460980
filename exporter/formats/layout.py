"""DOT to SVG in a child process with a time limit.

Graphviz comes inside the wheel of pygraphviz. Its layout holds the interpreter's lock and ignores signals, so that only
another process can end it. `python -m exporter.formats.layout` is that child: DOT texts on its standard input and SVG
texts on its standard output, each closed by a NUL byte.
"""

from __future__ import annotations

import html
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from exporter import files
from exporter.errors import InternalError, ResourceError, UnsupportedError

# What fontconfig, the dynamic loader and Python need; everything else of the parent's environment stays out.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "SYSTEMROOT")
SHOWN_BYTES = 2000
# Boxes must have the size of the text that will be in them, on every machine.
FONTS = Path(__file__).parent / "pictures" / "fonts"
SYSTEM_FONTS = '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'


def svg(dot: str | Path, *, seconds: float) -> bytes:
    """The picture of one graph. Raises as `pictures` does."""
    return pictures([dot.read_text(encoding="utf-8") if isinstance(dot, Path) else dot], seconds=seconds)[0]


def pictures(texts: Sequence[str], *, seconds: float) -> list[bytes]:
    """The pictures of several graphs, within `seconds` of wall time in all.

    Raises ResourceError when the time is up, UnsupportedError without Graphviz, InternalError when it fails.
    """
    data = b"".join(text.encode() + b"\0" for text in texts)
    require_graphviz()
    with TemporaryDirectory(prefix="export-model-fonts-") as folder:
        output = run("exporter.formats.layout", (), data, seconds, {"FONTCONFIG_FILE": offered_fonts(folder)})
    found = output.split(b"\0")[:-1]
    if len(found) != len(texts):
        raise InternalError("Graphviz did not draw every graph", why=f"{len(found)} of {len(texts)} came back")
    return found


def offered_fonts(folder: str) -> str:
    """The path of a fontconfig file that adds our fonts to those of the system.

    The fonts are linked into the folder, because fontconfig 2.13 writes a file of its own beside the fonts it finds.
    """
    for font in FONTS.glob("*.ttf"):
        Path(folder, font.name).symlink_to(font)
    lines = ("<fontconfig>", f"<dir>{html.escape(folder)}</dir>", SYSTEM_FONTS, "</fontconfig>")
    files.write_lines(Path(folder, "fonts.conf"), lines)
    return str(Path(folder, "fonts.conf"))


def run(
    module: str, arguments: Sequence[str], data: bytes, seconds: float, more: dict[str, str] | None = None
) -> bytes:
    """The output of a module run as a child, with `more` in its environment.

    It and everything that it started are gone when this returns. Raises ResourceError when the time is up,
    InternalError when it fails.
    """
    with subprocess.Popen(
        # With -P nothing is imported from the folder that the child happens to start in.
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment() | (more or {}),
        start_new_session=True,
    ) as child:
        try:
            output, complaint = child.communicate(data, timeout=max(seconds, 0))
        except subprocess.TimeoutExpired as error:
            raise ResourceError(
                "the picture took too long",
                why=f"{module.rpartition('.')[2]} was ended after {max(seconds, 0):.3g} s",
                hint="give it more time with --layout-seconds, or open the ONNX file in Netron",
            ) from error
        finally:
            end(child)
    if child.returncode != 0:
        raise InternalError(f"{module.rpartition('.')[2]} failed", why=reason(child.returncode, complaint))
    return output


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole session unless it has already been waited for."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def reason(status: int, complaint: bytes) -> str:
    tail = complaint[-SHOWN_BYTES:].decode("utf-8", "replace").strip()
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"{ended}: {tail}" if tail else ended


def require_graphviz() -> None:
    if find_spec("pygraphviz") is None and shutil.which("dot") is None:
        raise UnsupportedError(
            "no Graphviz", why="neither pygraphviz nor a `dot` program is there", hint="pip install pygraphviz"
        )


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    places = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    return kept | {"PYTHONPATH": os.pathsep.join(places), "PYTHONHASHSEED": "0"}


def draw(text: bytes) -> bytes:
    """One layout, in this process: with pygraphviz, or with the system's `dot`."""
    if find_spec("pygraphviz") is None:
        return subprocess.run(["dot", "-Tsvg"], input=text, stdout=subprocess.PIPE, check=True).stdout
    from pygraphviz import AGraph

    return bytes(AGraph(string=text.decode()).draw(format="svg", prog="dot"))


def main() -> None:
    for text in sys.stdin.buffer.read().split(b"\0")[:-1]:
        sys.stdout.buffer.write(draw(text) + b"\0")


if __name__ == "__main__":
    main()
