"""What is usual, and what there is to choose from: plain values, because `--help` shows them and imports no records."""

from __future__ import annotations

DEFAULT_FORMATS = ("onnx", "parquet")
OPSET = 18
# Up to the newest that both onnx 1.23 and ONNX Runtime 1.32 have released; `tests/test_opsets.py` compares.
SUPPORTED_OPSETS = range(13, 29)
DTYPES = ("keep", "float32", "float16")
ATOL, RTOL = 1e-6, 1e-3
EXTERNAL_DATA_CHOICES = ("auto", "always", "never")
LAYOUT_SECONDS = 60.0
DIRECTIONS = ("down", "right")
THEME_NAMES = ("light", "dark", "print")
COLOURINGS = ("class", "params", "macs", "dtype")
