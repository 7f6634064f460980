// The folded tree: which boxes and blocks there are, where each layer is, and which copy of it.

import type { Items, Layers } from "./data";

/** The number that stands for the whole model. */
export const OUTSIDE = -1;

export class Outline {
  readonly children = new Map<number, number[]>();
  /** Of each layer: its box (or the block that is its inside), -1 for none, and its copy there. */
  private readonly home: Int32Array;
  private readonly copy: Int32Array;
  private readonly totals: (number | null)[][] = [];

  constructor(readonly items: Items, readonly layers: Layers) {
    this.home = new Int32Array(layers.name.length).fill(-1);
    this.copy = new Int32Array(layers.name.length);
    this.children.set(OUTSIDE, []);
    items.parent.forEach((parent, item) => {
      this.children.get(parent)!.push(item);
      if (items.block[item]) {
        this.children.set(item, []);
      }
      for (const row of items.rows[item]) {
        row.forEach((layer, copy) => {
          this.home[layer] = item;
          this.copy[layer] = copy;
        });
      }
    });
  }

  isBlock(item: number): boolean {
    return this.items.block[item] === 1;
  }

  /** The layer itself or, if it is inside of one that is drawn as a box, that one; -1 if there is none. */
  drawn(layer: number): number {
    while (layer >= 0 && this.home[layer] < 0) {
      layer = this.layers.parent[layer];
    }
    return layer;
  }

  /** The item that a layer is in and its copy there; -1 for none. */
  place(layer: number): [item: number, copy: number] {
    const drawn = this.drawn(layer);
    return drawn < 0 ? [-1, 0] : [this.home[drawn], this.copy[drawn]];
  }

  /** From the outermost block to the item itself. */
  path(item: number): number[] {
    const path = [];
    for (let at = item; at !== OUTSIDE; at = this.items.parent[at]) {
      path.unshift(at);
    }
    return path;
  }

  /** The layers of one copy of an item (all copies for -1): those of its rows, and all that is inside. */
  *layersOf(item: number, copy = -1): Generator<number> {
    const stack = [item];
    while (stack.length) {
      const at = stack.pop()!;
      const copies = copy < 0 ? 1 : this.copiesBelow(item, at);
      for (const row of this.items.rows[at]) {
        yield* copy < 0 ? row : row.slice(copy * copies, (copy + 1) * copies);
      }
      stack.push(...(this.children.get(at) ?? []));
    }
  }

  /** How many copies of an item are in one of a block around it. */
  private copiesBelow(block: number, item: number): number {
    let copies = 1;
    for (let at = item; at !== block; at = this.items.parent[at]) {
      copies *= this.items.times[at];
    }
    return copies;
  }

  /** Sum of a column over all that is in an item, without counting anything twice. */
  total(item: number, column: "params" | "macs" | "activation_bytes"): number | null {
    const at = ["params", "macs", "activation_bytes"].indexOf(column);
    this.totals[at] ??= [];
    return (this.totals[at][item] ??= this.sumOf(item, column));
  }

  private sumOf(item: number, column: "params" | "macs" | "activation_bytes"): number | null {
    const values = column === "params" ? this.layers.params_total : this.layers[column];
    // What a nested model needs is the sum of its inside.
    const own = this.isBlock(item) ? [] : this.items.rows[item].flat().map((layer) => values[layer]);
    const inside = (this.children.get(item) ?? []).map((child) => this.total(child, column));
    const known = [...own, ...inside].filter((value): value is number => value != null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
  }

  /** The layer that names a box: the first that is more than padding, norm or activation. */
  head(item: number): number {
    const firsts = this.items.rows[item].map((row) => row[0]);
    return firsts.find((layer) => !FOLLOWERS.has(this.layers.kind[layer])) ?? firsts[0];
  }
}

const FOLLOWERS = new Set(["normalisation", "activation", "dropout", "shape"]);
