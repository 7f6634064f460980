// The tables that the page carries: columns in packed chunks, see exporter/formats/report/tables.py.

export interface Layers {
  name: string[];
  key: string[];
  parent: number[];
  class: string[];
  kind: string[];
  label: string[];
  trainable: number[];
  calls: number[];
  inputs: string[];
  outputs: string[];
  params: number[];
  params_trainable: number[];
  params_total: number[];
  weight_bytes: number[];
  macs: (number | null)[];
  flops: (number | null)[];
  activation_bytes: (number | null)[];
  live_bytes: (number | null)[];
  settings: string[];
  nodes: (number | null)[];
}

export interface Edges {
  source: number[];
  target: number[];
  tensor: string[];
}

export interface Items {
  parent: number[];
  block: number[];
  title: string[];
  times: number[];
  rows: number[][][];
}

export interface Weights {
  name: string[];
  layer: number[];
  shape: string[];
  dtype: string[];
  elements: number[];
  nbytes: number[];
  trainable: number[];
  // From here on only with statistics.
  min?: (number | null)[];
  max?: (number | null)[];
  mean?: (number | null)[];
  std?: (number | null)[];
  l2_norm?: (number | null)[];
  zeros?: (number | null)[];
  near_zeros?: (number | null)[];
  nans?: (number | null)[];
  infs?: (number | null)[];
  dead_filters?: (number | null)[];
  distinct?: (number | null)[];
  low?: (number | null)[];
  high?: (number | null)[];
  counts?: (number[] | null)[];
}

export interface Model {
  layers: Layers;
  edges: Edges;
  items: Items;
  weights: Weights;
}

const COLUMNS = {
  layers: ["name", "key", "parent", "class", "kind", "label", "trainable", "calls", "inputs", "outputs", "params",
    "params_trainable", "params_total", "weight_bytes", "macs", "flops", "activation_bytes", "live_bytes", "settings",
    "nodes"],
  edges: ["source", "target", "tensor"],
  items: ["parent", "block", "title", "times", "rows"],
  weights: ["name", "layer", "shape", "dtype", "elements", "nbytes", "trainable"],
};

export async function readModel(): Promise<Model> {
  const tables: Record<string, unknown> = {};
  for (const [name, columns] of Object.entries(COLUMNS)) {
    tables[name] = await readTable(name, columns);
  }
  return tables as unknown as Model;
}

/** All chunks of a table as one; their elements go, so that nothing is in memory twice. */
async function readTable(name: string, columns: string[]): Promise<Record<string, unknown[]>> {
  const table: Record<string, unknown[]> = Object.fromEntries(columns.map((column) => [column, []]));
  for (const element of document.querySelectorAll(`script[data-table="${name}"]`)) {
    const chunk: Record<string, unknown[]> = JSON.parse(await unpacked(element.textContent ?? ""));
    for (const [column, values] of Object.entries(chunk)) {
      table[column] = table[column]?.length ? table[column].concat(values) : values;
    }
    element.remove();
  }
  return table;
}

async function unpacked(base64: string): Promise<string> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) {
    bytes[place] = text.charCodeAt(place);
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}
