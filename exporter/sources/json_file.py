"""JSON files of models and weights. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exporter.errors import SourceError


def read_json(path: str, hint: str) -> Any:
    """The content. Raises SourceError, with the hint, for a file that cannot be read or is no JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error), hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise SourceError("is corrupt", where=path, why=f"it is not JSON: {error}", hint=hint) from error
