"""A layer's settings as the JSON text of the catalogue."""

from __future__ import annotations

import json
import math
from typing import Any

# What a model's config has for the graph inside.
INNER_GRAPH = ("layers", "input_layers", "output_layers")


def config_text(config: Any) -> str:
    return json.dumps(plain(config), separators=(",", ":"), sort_keys=True, allow_nan=False)


def plain(value: Any) -> Any:
    """JSON data without the graphs of embedded models; NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, dict):
        left_out = INNER_GRAPH if isinstance(value.get("layers"), list) else ()
        return {str(key): plain(item) for key, item in value.items() if key not in left_out}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
