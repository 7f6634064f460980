"""The two pictures of docs/networkx.md: layers joined in the order of a list, and joined by what flows between them.

pip install matplotlib && python benchmarks/network_pictures.py --output docs
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import matplotlib
import networkx as nx
from keras import layers

import exporter

matplotlib.use("svg")
from matplotlib import pyplot as plt

COLOURS = {"Conv2D": "#1f5fa8", "MaxPooling2D": "#0f7474", "UpSampling2D": "#6b6150", "Concatenate": "#b3202f"}
OTHER = "#1b1b1b"
SEED = 1


def u_net() -> Any:
    """Three steps down, three steps up, a skip connection between the arms at each."""
    x = keras.Input((128, 128, 3), name="image")
    y, skips = x, []
    for step in range(3):
        for half in "ab":
            y = layers.Conv2D(16 << step, 3, padding="same", activation="relu", name=f"down{step}_{half}")(y)
        skips.append(y)
        y = layers.MaxPooling2D(name=f"pool{step}")(y)
    y = layers.Conv2D(128, 3, padding="same", activation="relu", name="bottom")(y)
    for step in reversed(range(3)):
        y = layers.UpSampling2D(name=f"up{step}")(y)
        y = layers.Concatenate(name=f"join{step}")([y, skips[step]])
        for half in "ab":
            y = layers.Conv2D(16 << step, 3, padding="same", activation="relu", name=f"up{step}_{half}")(y)
    return keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid", name="mask")(y), name="unet")


def exported(model: Any, folder: Path) -> Path:
    model.save(folder / "unet.keras")
    command = [sys.executable, "-m", "exporter", "unet.keras", "--to", "parquet", "--output", "outputs", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return folder / "outputs" / "unet"


def sequential(graph: nx.MultiDiGraph) -> tuple[nx.DiGraph, dict[str, Any]]:
    """What one gets from `model.layers` alone: each layer joined with the next one of the list, placed by springs."""
    names = sorted(graph, key=lambda name: graph.nodes[name]["index"])
    chain = nx.DiGraph(nx.path_graph(names, create_using=nx.DiGraph))
    nx.set_node_attributes(chain, dict(graph.nodes(data=True)))
    return chain, nx.spring_layout(chain, seed=SEED)


def layered(graph: nx.MultiDiGraph) -> tuple[nx.DiGraph, dict[str, Any]]:
    """What flows where: to the right goes the time, downwards the resolution, both from the graph itself."""
    places = {}
    for time, generation in enumerate(nx.topological_generations(graph)):
        for name in generation:
            data = graph.nodes[name]
            shapes = [json.loads(data[side])[0] for side in ("input_shapes", "output_shapes") if data[side] != "[]"]
            # What changes the resolution is between two heights, so that no edge runs behind it.
            places[name] = (time, sum(math.log2(shape[1]) for shape in shapes) / len(shapes))
    return nx.DiGraph(graph), places


def draw(graph: nx.DiGraph, places: dict[str, Any], title: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.2))
    colours = [COLOURS.get(data["class"], OTHER) for _, data in graph.nodes(data=True)]
    nx.draw_networkx_nodes(graph, places, ax=axes, node_size=110, node_color=colours)
    nx.draw_networkx_edges(graph, places, ax=axes, node_size=110, edge_color="#777777", arrowsize=8)
    for name, place in places.items():
        axes.annotate(name, place, (3, 6), textcoords="offset points", rotation=35, fontsize=7)
    axes.set_title(title, fontsize=10)
    axes.margins(0.06, 0.16)
    axes.set_axis_off()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER")
    output = parser.parse_args().output
    # Without a fixed salt two runs give different ids, and so different files.
    matplotlib.rcParams["svg.hashsalt"] = "networks"
    with tempfile.TemporaryDirectory() as folder:
        graph = exporter.to_networkx(exported(u_net(), Path(folder)))
    draw(*sequential(graph), "one layer after the other, spring layout", output / "network_sequential.svg")
    draw(*layered(graph), "the tensors between the layers, layered layout", output / "network_layered.svg")


if __name__ == "__main__":
    main()
