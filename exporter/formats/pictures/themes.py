"""How a whole picture looks: `light` and `dark` for screens, `print` for paper without colour.

Every text has a contrast of at least 4.5:1 to what is behind it and every border one of 3:1 (WCAG 2.2, 1.4.3 and
1.4.11); `tests/test_picture_themes.py` computes them. In `print`, greys say what colours say elsewhere.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.formats.node_style import FAINT_INK, INK, STYLES, Style


@dataclass(frozen=True)
class Theme:
    """Colours as `#rrggbb`. `levels` are fills for amounts, from little to much; `bars` of parameters and of MACs."""

    name: str
    background: str
    ink: str
    faint_ink: str
    box: str
    arrow: str
    frame: str
    frame_fill: str
    model_frame: str
    repeat_frame: str
    repeat_fill: str
    link: str
    link_fill: str
    link_border: str
    levels: tuple[str, ...]
    level_border: str
    bars: tuple[str, str]
    kinds: Mapping[str, Style] = field(default_factory=dict)


LIGHT = Theme(
    name="light",
    background="#ffffff",
    ink=INK,
    faint_ink=FAINT_INK,
    box="#ffffff",
    arrow="#444444",
    frame="#8f8f8f",
    frame_fill="#fcfcfc",
    model_frame="#1b1b1b",
    repeat_frame="#1f5fa8",
    repeat_fill="#f3f8fe",
    link="#6b7f95",
    link_fill="#e3e9f0",
    link_border="#5a6b7d",
    levels=("#fff7e0", "#fde3b0", "#fbc78a", "#f5a273", "#ef8468"),
    level_border="#8a4b1f",
    bars=("#5b3fa6", "#a85500"),
    kinds=STYLES,
)


def shaded(color: str, lightness: float, most: float) -> str:
    """The hue of a colour, as light as asked for (0 to 1) and at most as saturated."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    hue, _, saturation = colorsys.rgb_to_hls(*parts)
    return "#" + "".join(
        f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, min(saturation, most))
    )


DARK = Theme(
    name="dark",
    background="#14171c",
    ink="#f2f4f7",
    faint_ink="#b6bec9",
    box="#1d2229",
    arrow="#aab4c0",
    frame="#6f7a87",
    frame_fill="#181c22",
    model_frame="#d5dbe3",
    repeat_frame="#69a9f0",
    repeat_fill="#16212f",
    link="#7d90a6",
    link_fill="#2b3644",
    link_border="#93a6bb",
    levels=("#2b2620", "#47341c", "#633d1b", "#7d401d", "#943b24"),
    level_border="#d99a62",
    bars=("#b49cf5", "#f0a24c"),
    kinds={
        name: Style(style.title, shaded(style.border, 0.23, 0.55), shaded(style.border, 0.68, 0.6))
        for name, style in STYLES.items()
    },
)
# Layers with weights of their own are grey on paper, the others white.
WEIGHTY = {"convolution", "dense", "sequence", "embedding"}
PRINT = Theme(
    name="print",
    background="#ffffff",
    ink="#000000",
    faint_ink="#333333",
    box="#ffffff",
    arrow="#000000",
    frame="#767676",
    frame_fill="#ffffff",
    model_frame="#000000",
    repeat_frame="#000000",
    repeat_fill="#f4f4f4",
    link="#555555",
    link_fill="#ffffff",
    link_border="#000000",
    levels=("#ffffff", "#e6e6e6", "#cccccc", "#b2b2b2", "#999999"),
    level_border="#000000",
    bars=("#000000", "#7a7a7a"),
    kinds={
        name: Style(style.title, "#e2e2e2" if name in WEIGHTY else "#ffffff", "#000000")
        for name, style in STYLES.items()
    },
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK, PRINT)}
