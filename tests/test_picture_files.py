"""`model.png` and `model.pdf`: read with other libraries, in size, text, determinism and limits."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exporting
import pypdf
import pytest
from layer_graphs import GRAPHS, Builder, hostile
from PIL import Image

from exporter.errors import ResourceError, UnsupportedError
from exporter.formats import FORMATS, layout, pdf_picture, png_picture, svg_picture
from exporter.formats.pictures import rendered, rendering
from exporter.records import Job, Material, ModelGraph, PictureOptions

SVG = "{http://www.w3.org/2000/svg}"


def material(graph: ModelGraph, *formats: str, **options: Any) -> Material:
    return Material(Job("", "", "", "", formats, "", "", picture=PictureOptions(**options)), graph)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all three pictures of one model."""
    made = tmp_path_factory.mktemp("pictures")
    for module in (svg_picture, png_picture, pdf_picture):
        assert module.write(material(GRAPHS["residual"], "svg", "png", "pdf"), made) == ()
    return made


def points(folder: Path) -> tuple[float, float]:
    root = ElementTree.parse(folder / "model.svg").getroot()
    return float(root.get("width", 0)), float(root.get("height", 0))


@pytest.mark.slow
def test_the_png_has_two_pixels_for_each_point(folder: Path) -> None:
    width, height = points(folder)
    with Image.open(folder / "model.png") as image:
        assert image.size == (2 * width, 2 * height)


@pytest.mark.parametrize(("theme", "paper"), [("light", (255, 255, 255)), ("dark", (0x14, 0x17, 0x1C))])
def test_the_png_has_text_on_its_theme(theme: str, paper: tuple[int, ...], tmp_path: Path) -> None:
    png_picture.write(material(GRAPHS["tiny"], "png", theme=theme), tmp_path)
    with Image.open(tmp_path / "model.png") as image:
        pixels = image.convert("RGB")
        assert pixels.getpixel((2, 2)) == paper
        heading = pixels.crop((32, 20, 200, 60)).getcolors(1 << 16) or []
    # The model's name is there in the theme's ink: without a font resvg would draw nothing.
    assert max(abs(color[0] - paper[0]) for _, color in heading) > 180


def test_the_pdf_is_one_page_of_the_pictures_size(folder: Path) -> None:
    reader = pypdf.PdfReader(folder / "model.pdf")
    (page,) = reader.pages
    assert (page.mediabox.width, page.mediabox.height) == pytest.approx(points(folder), abs=0.01)
    assert reader.metadata is not None
    assert reader.metadata.title == "residual"


def test_the_text_of_the_pdf_can_be_searched(folder: Path) -> None:
    found = pypdf.PdfReader(folder / "model.pdf").pages[0].extract_text()
    compact = re.sub(r"\s", "", found)
    root = ElementTree.parse(folder / "model.svg").getroot()
    for text in root.iter(f"{SVG}text"):
        assert re.sub(r"\s", "", text.text or "") in compact
    assert "conv4_block2 … conv4_block23" in found


def test_the_fonts_are_in_the_pdf(folder: Path) -> None:
    (page,) = pypdf.PdfReader(folder / "model.pdf").pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].get_object().values()]
    descendants = [font["/DescendantFonts"][0].get_object() for font in fonts]
    assert len(descendants) == 2
    assert all("DejaVuSans" in font["/BaseFont"] and "/FontFile2" in font["/FontDescriptor"] for font in descendants)


@pytest.mark.parametrize("kind", ["png", "pdf"])
@pytest.mark.slow
def test_the_same_picture_gives_the_same_bytes(kind: str, folder: Path, tmp_path: Path) -> None:
    rendered.write_rendered(kind, material(GRAPHS["residual"], kind), tmp_path)
    assert (tmp_path / f"model.{kind}").read_bytes() == (folder / f"model.{kind}").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_strange_names_do_no_harm(kind: str, tmp_path: Path) -> None:
    assert rendered.write_rendered(kind, material(hostile(), kind), tmp_path) == ()


def test_no_path_or_time_of_this_machine_is_in_the_files(folder: Path) -> None:
    for name in ("model.png", "model.pdf"):
        data = (folder / name).read_bytes()
        assert str(folder).encode() not in data
        assert sys.prefix.encode() not in data
    assert b"CreationDate (D:1980" in (folder / "model.pdf").read_bytes()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 500), (2000, 1000)),
        ((20_000, 100), (32_767, 163)),
        ((100, 50_000), (65, 32_767)),
        ((10_000, 10_000), (7_071, 7_071)),
        ((400_000, 1), (32_767, 1)),
    ],
)
def test_a_png_stays_in_its_limits(size: tuple[float, float], expected: tuple[int, int]) -> None:
    found = rendering.pixels(*size)
    assert found == expected
    assert max(found) <= 32_767
    assert found[0] * found[1] <= rendering.MOST_PIXELS


def wide(width: int, height: int) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return f'{head}<title>wide</title><rect width="{width}" height="{height}" fill="#123456"/></svg>'


@pytest.mark.slow
def test_a_very_long_picture_becomes_a_png_and_a_pdf() -> None:
    import io

    with Image.open(io.BytesIO(rendering.png(wide(40_000, 60)))) as image:
        # It keeps its proportions, which whole pixels do not have.
        assert 32_000 < image.width <= 32_767
        assert image.height == 49
    (page,) = pypdf.PdfReader(io.BytesIO(rendering.pdf(wide(40_000, 60)))).pages
    assert (page.mediabox.width, page.mediabox.height) == pytest.approx((14_400, 21.6), abs=0.01)


def test_east_asian_names_ask_for_fonts_of_the_system() -> None:
    assert rendering.is_covered("conv → ×2 Ω я …")
    assert not rendering.is_covered("層")


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_without_time_the_file_is_left_out_and_a_note_says_so(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(module: str, *_: Any) -> bytes:
        if module == rendered.MODULE:
            raise ResourceError("the picture took too long")
        return actual(module, *_)

    actual = layout.run
    monkeypatch.setattr(layout, "run", slow)
    (note,) = rendered.write_rendered(kind, material(GRAPHS["tiny"], kind), tmp_path)
    assert f"model.{kind} was not written" in note
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_missing_library_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="is missing") as caught:
        rendered.write_rendered(kind, material(GRAPHS["tiny"], kind), tmp_path)
    assert "pip install" in (caught.value.hint or "")


def test_formats_that_draw_take_the_options() -> None:
    assert [name for name, entry in FORMATS.items() if entry.draws] == ["dot", "svg", "png", "pdf"]


def boxes_of_text(graph: ModelGraph, folder: Path) -> Iterator[str]:
    pdf_picture.write(material(graph, "pdf"), folder)
    yield from pypdf.PdfReader(folder / "model.pdf").pages[0].extract_text().splitlines()


@pytest.mark.slow
def test_signs_that_the_font_lacks_do_not_stop_the_pdf(tmp_path: Path) -> None:
    build = Builder()
    build.add("Dense", [build.add("InputLayer", name="層")], "plain")
    assert any("plain" in line for line in boxes_of_text(build.graph(), tmp_path))


@pytest.mark.slow
def test_an_export_writes_all_pictures_and_says_in_its_receipt_how(tmp_path: Path) -> None:
    source = keras_model(tmp_path)
    outcome = exporting.export_here(
        source, tmp_path / "out", formats=("dot", "svg", "png", "pdf"), verify=False, theme="dark", depth=1
    )
    assert (outcome.status, outcome.error) == ("done", None)
    made = Path(outcome.output_path)
    assert {"model.dot", "model.svg", "model.png", "model.pdf"} <= {path.name for path in made.iterdir()}
    assert exporting.manifest(made)["arguments"]["picture"]["theme"] == "dark"
    with Image.open(made / "model.png") as image:
        assert image.convert("RGB").getpixel((2, 2)) == (0x14, 0x17, 0x1C)


@pytest.mark.slow
def test_an_unknown_block_is_noticed_before_anything_is_converted(tmp_path: Path) -> None:
    source = keras_model(tmp_path)
    outcome = exporting.export_here(source, tmp_path / "out", formats=("onnx", "svg"), expand=("steem",))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "stem" in outcome.error["why"]
    assert {stage.name for stage in outcome.stages} <= {"import", "build", "read", "source"}


def keras_model(folder: Path) -> Path:
    import keras

    stem = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()], name="stem")
    image = keras.Input((8, 8, 3))
    head = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(stem(image)))
    keras.Model(image, head).save(folder / "model.keras")
    return folder / "model.keras"
