"""Contrast of every theme, computed as WCAG 2.2 defines it: 4.5:1 for text (1.4.3), 3:1 for borders (1.4.11)."""

from __future__ import annotations

import pytest

from exporter.defaults import COLOURINGS, THEME_NAMES
from exporter.formats.pictures.colouring import BOUNDS, DTYPE_LOOKS, share_style
from exporter.formats.pictures.themes import THEMES, Theme

TEXT, BORDER = 4.5, 3.0
each_theme = pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES.keys())


def luminance(color: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_choice_has_a_theme() -> None:
    assert tuple(THEMES) == THEME_NAMES
    assert set(COLOURINGS) == {"class", "params", "macs", "dtype"}
    assert all(set(DTYPE_LOOKS.values()) <= set(theme.kinds) for theme in THEMES.values())


def fills(theme: Theme) -> list[str]:
    """What texts in full strength stand on."""
    shares = [share_style(theme, share, "MACs").fill for share in (*BOUNDS, 1.0, None)]
    grounds = [theme.background, theme.box, theme.frame_fill, theme.repeat_fill, theme.link_fill]
    return [*grounds, *shares, *(style.fill for style in theme.kinds.values())]


@each_theme
def test_text_can_be_read(theme: Theme) -> None:
    assert min(contrast(theme.ink, fill) for fill in fills(theme)) >= TEXT
    faint = (theme.background, theme.box, theme.frame_fill, theme.repeat_fill)
    assert min(contrast(theme.faint_ink, fill) for fill in faint) >= TEXT


@each_theme
def test_lines_can_be_seen(theme: Theme) -> None:
    grounds = (theme.background, theme.frame_fill, theme.repeat_fill)
    lines = [theme.arrow, theme.frame, theme.model_frame, theme.repeat_frame, theme.link, theme.link_border]
    lines += [theme.level_border, *(style.border for style in theme.kinds.values())]
    for line in lines:
        assert min(contrast(line, ground) for ground in grounds) >= BORDER, line
    assert min(contrast(bar, theme.box) for bar in theme.bars) >= BORDER


@each_theme
def test_levels_grow_apart_from_the_background(theme: Theme) -> None:
    distances = [contrast(level, theme.background) for level in theme.levels]
    assert distances == sorted(distances)


def test_print_has_no_colour() -> None:
    theme = THEMES["print"]
    colors = [theme.ink, theme.arrow, theme.frame, theme.repeat_frame, *theme.levels, *theme.bars, *fills(theme)]
    assert all(color[1:3] == color[3:5] == color[5:7] for color in colors)
