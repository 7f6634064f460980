"""SVG to PNG or PDF in a child process: `python -m exporter.formats.pictures.rendering png|pdf`, from stdin to stdout.

A child, because a large PNG takes hundreds of megabytes for its pixels, and because its time is limited.
"""

from __future__ import annotations

import io
import logging
import math
import re
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from exporter.errors import UnsupportedError

FONTS = Path(__file__).parent / "fonts"
REGULAR, BOLD = FONTS / "DejaVuSans.ttf", FONTS / "DejaVuSans-Bold.ttf"
# Pixels of a point, so that text is sharp on dense screens and on paper; PNG readers stop at the second number in
# each direction. The third bounds memory: four bytes for each pixel.
PIXELS_PER_POINT, MOST_PIXELS_A_SIDE, MOST_PIXELS = 2.0, 32_767, 50_000_000
# PDF readers stop at 200 inches.
MOST_POINTS = 14_400.0
SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
LIBRARIES = {"png": "resvg_py", "pdf": "fpdf"}
PACKAGES = {"png": "resvg-py", "pdf": "fpdf2"}


def require(kind: str) -> None:
    """Raises UnsupportedError without the library that writes this kind of file."""
    if find_spec(LIBRARIES[kind]) is None:
        package = PACKAGES[kind]
        raise UnsupportedError(f"{kind.upper()} needs {package}", why="it is missing", hint=f"pip install {package}")


def pixels(width: float, height: float) -> tuple[int, int]:
    """The size of the PNG of a picture in points: two pixels a point, or as many as PNG and memory can take."""
    scale = min(PIXELS_PER_POINT, MOST_PIXELS_A_SIDE / max(width, height), math.sqrt(MOST_PIXELS / (width * height)))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def size_of(svg: str) -> tuple[float, float]:
    found = SIZE.search(svg[:1000])
    if found is None:
        raise ValueError("the picture has no viewBox")
    return float(found[1]), float(found[2])


def png(svg: str) -> bytes:
    """Fonts of the system are looked at only for signs that DejaVu Sans does not have: reading them takes long."""
    import resvg_py

    width, height = pixels(*size_of(svg))
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            width=width,
            height=height,
            dpi=96,
            skip_system_fonts=is_covered(svg),
            font_files=[str(REGULAR), str(BOLD)],
        )
    )


def is_covered(text: str) -> bool:
    """Whether DejaVu Sans surely has all signs: it has no East Asian scripts and few pictographs."""
    return max(map(ord, text), default=0) < 0x2E80


def pdf(svg: str) -> bytes:
    """One page of the picture's size, with text as text. The fonts' used glyphs are in the file."""
    from fpdf import FPDF
    from fpdf.svg import SVGObject

    width, height = size_of(svg)
    scale = min(1.0, MOST_POINTS / max(width, height))
    document = FPDF(unit="pt", format=(width * scale, height * scale))
    # The moment and the machine are not in the file, so that two runs give the same bytes.
    document.set_creation_date(EPOCH)
    document.set_title(title_of(svg))
    document.set_lang("en")
    for style, path in (("", REGULAR), ("B", BOLD)):
        document.add_font("DejaVu Sans", style, path)
    document.add_page()
    SVGObject(drawable(svg)).draw_to_page(document)
    return bytes(document.output())


def title_of(svg: str) -> str:
    import xml.etree.ElementTree as ElementTree

    return ElementTree.fromstring(svg).findtext("{http://www.w3.org/2000/svg}title") or ""


def drawable(svg: str) -> str:
    """Without what the PDF writer would warn of and leave out: titles, descriptions, the second choice of fonts."""
    bare = re.sub(r"<(title|desc)\b[^>]*?(/>|>.*?</\1>)", "", svg, flags=re.DOTALL)
    return bare.replace("DejaVu Sans, Verdana, sans-serif", "DejaVu Sans")


def main(kind: str) -> None:
    logging.disable(logging.WARNING)
    svg = sys.stdin.buffer.read().decode()
    made = io.BytesIO({"png": png, "pdf": pdf}[kind](svg))
    sys.stdout.buffer.write(made.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
