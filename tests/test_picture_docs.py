"""What docs/pictures.md shows runs, and its numbers are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from layer_graphs import residual_chain
from test_docs import ROOT, blocks, commands
from test_picture_options import material

from exporter import cli, defaults
from exporter.formats import svg_picture
from exporter.formats.columns import PAGES
from exporter.formats.pictures import drawings, opening, rendering
from exporter.records import Job, Outcome

PAGE = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
GALLERY = ROOT / "docs" / "gallery"


@pytest.mark.parametrize("arguments", commands(PAGE), ids=" ".join)
def test_commands_for_pictures_are_understood(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran: list[Job] = []

    def run(job: Job, *, watch: object) -> Outcome:
        ran.append(job)
        return Outcome(job.name, "done", job.output_path)

    assert cli.main(arguments, run=run) == 0
    assert len(ran) == 1


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python", PAGE))
def test_ids_lead_from_a_layer_to_its_element(block: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "resnet101"
    folder.mkdir(parents=True)
    svg_picture.write(material(residual_chain()), folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block]
    found = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout == "drawn in conv4_block2_1_conv\n"


def test_the_page_has_every_option_and_the_numbers_of_the_code() -> None:
    for choices in (defaults.DIRECTIONS, defaults.THEME_NAMES, defaults.COLOURINGS):
        assert r"\|".join(choices) in PAGE
    numbers = {
        f"at most {drawings.READABLE} boxes",
        f"below {svg_picture.READABLE_SCALE} to fit",
        f"Up to {drawings.MOST_EXPANDED:,} layers",
        f"at least {opening.ALIKE:.0%}".replace("%", " %"),
        f"{rendering.MOST_PIXELS_A_SIDE:,} pixels",
        f"{rendering.MOST_PIXELS // 10**6} million",
        f"{rendering.MOST_POINTS:,.0f} points",
        *(f"{page[0]:.0f}×{page[1]:.0f}" for page in PAGES),
    }
    text = " ".join(PAGE.split())
    assert {number for number in numbers if number not in text} == set()


def test_the_gallery_is_complete_and_small() -> None:
    page = (GALLERY / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(([^)]+)\)", page))
    assert shown == {path.name for path in GALLERY.iterdir()} - {"README.md"}
    assert sum(path.stat().st_size for path in GALLERY.iterdir()) < 6_000_000
