"""The file in which a live model describes itself: HDF5 with the records as JSON and, if wanted, its weights."""

from __future__ import annotations

# An attribute of the file, with the version; a dataset of bytes; a group of datasets by position.
MARK, GRAPH, WEIGHTS = "export_model_graph", "graph", "weights"
GRAPH_VERSION = 1
# An empty file in the folder of a live model that is to be built again, and what is said of its weights.
FOLDER_MARK, FROM_LIVE_MODEL = "live_model", "from the live model"
