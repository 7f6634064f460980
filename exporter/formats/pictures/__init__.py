"""What the pictures `model.dot`, `model.svg`, `model.png` and `model.pdf` have in common.

A drawing is a folded tree of boxes (`sketch`), of which some blocks are open (`opening`); a theme and a colouring say
how it looks; Graphviz lays it out, or, where it cannot, `plain` does.
"""

from __future__ import annotations

# In `PictureOptions.expand`: nothing is folded.
ALL = "all"
