// All layers, sortable and filterable; choosing a row shows the layer in the graph.

import { amount, bytes, plural, sum, whole } from "./format";
import { makeGrid, numeric, printable, text } from "./grid";
import type { State } from "./state";

export function layerTable(host: HTMLElement, state: State): void {
  const { layers } = state.model;
  const grid = makeGrid(host, {
    label: "Layers",
    size: layers.name.length,
    columns: [
      numeric("#", layers.name.map((_, at) => at), String, { width: 76, filter: false, sortingOrder: ["asc", "desc"] }),
      text("Layer", layers.key, { flex: 3, minWidth: 220 }),
      text("Class", layers.class, { flex: 1.5 }),
      text("Output", layers.outputs, { flex: 2, minWidth: 160 }),
      numeric("Parameters", layers.params, whole),
      numeric("Bytes", layers.weight_bytes, bytes, { width: 104 }),
      numeric("MACs", layers.macs, amount, { width: 104 }),
      numeric("Activations", layers.activation_bytes, bytes),
      ...(layers.nodes.some((count) => count != null) ? [numeric("ONNX nodes", layers.nodes, whole)] : []),
    ],
    choose: (at) => {
      state.chooseLayer(at);
      document.getElementById("graph")?.scrollIntoView();
    },
    summary: (shown) => {
      const params = sum(shown.map((at) => layers.params[at])) ?? 0;
      return `${whole(shown.length)} of ${plural(layers.name.length, "layer")}, ${whole(params)} parameters`;
    },
  });
  const cells = (at: number) => [
    layers.key[at], layers.class[at], layers.outputs[at], whole(layers.params[at]), amount(layers.macs[at]),
    bytes(layers.activation_bytes[at]),
  ];
  printable("All layers", grid, ["Layer", "Class", "Output", "Parameters", "MACs", "Activations"], cells);
}
