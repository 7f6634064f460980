"""All tables of the catalogue, `models.parquet` among them: written last, because that one has the verdict."""

from __future__ import annotations

from pathlib import Path

from exporter.formats import layer_table, model_table
from exporter.records import Material


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    layer_table.write(material, folder)
    model_table.write(material, folder)
    return ()
