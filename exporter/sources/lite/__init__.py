"""TensorFlow Lite files: read with every offset and size checked, described, and converted."""
