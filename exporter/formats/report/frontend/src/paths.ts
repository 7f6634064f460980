// What a layer depends on, what depends on it, and the ways from one layer to another, across nested models.

import type { Edges, Layers } from "./data";

class Adjacency {
  private readonly starts: Int32Array;
  private readonly ends: Int32Array;

  constructor(size: number, from: number[], to: number[]) {
    this.starts = new Int32Array(size + 1);
    this.ends = new Int32Array(from.length);
    from.forEach((node) => this.starts[node + 1]++);
    for (let node = 0; node < size; node++) {
      this.starts[node + 1] += this.starts[node];
    }
    const next = this.starts.slice();
    from.forEach((node, place) => (this.ends[next[node]++] = to[place]));
  }

  reach(starts: Iterable<number>): Set<number> {
    const seen = new Set(starts);
    const stack = [...seen];
    while (stack.length) {
      const node = stack.pop()!;
      for (let place = this.starts[node]; place < this.starts[node + 1]; place++) {
        if (!seen.has(this.ends[place])) {
          seen.add(this.ends[place]);
          stack.push(this.ends[place]);
        }
      }
    }
    return seen;
  }
}

export class Paths {
  private readonly forward: Adjacency;
  private readonly backward: Adjacency;

  constructor(layers: Layers, edges: Edges) {
    const size = layers.name.length;
    const [from, to] = throughModels(layers, edges);
    this.forward = new Adjacency(size, from, to);
    this.backward = new Adjacency(size, to, from);
  }

  /** The layers themselves are among the result. */
  downstream(starts: Iterable<number>): Set<number> {
    return this.forward.reach(starts);
  }

  upstream(ends: Iterable<number>): Set<number> {
    return this.backward.reach(ends);
  }

  /** All layers on some way from one group to the other; empty if there is none. */
  between(starts: Iterable<number>, ends: Iterable<number>): Set<number> {
    const after = this.downstream(starts);
    return new Set([...this.upstream(ends)].filter((layer) => after.has(layer)));
  }
}

/** Edges join siblings; these also lead from a nested model to its first layers, and from its last ones out of it. */
function throughModels(layers: Layers, edges: Edges): [from: number[], to: number[]] {
  const [fed, feeds, models] = [new Set(edges.target), new Set(edges.source), new Set<number>()];
  for (const layer of [...edges.source, ...edges.target]) {
    models.add(layers.parent[layer]);
  }
  const from: number[] = [];
  const to: number[] = [];
  const join = (source: number, target: number) => (from.push(source), to.push(target));
  const lasts = new Map<number, number[]>();
  layers.parent.forEach((parent, layer) => {
    if (parent < 0 || !models.has(parent)) {
      return;
    }
    if (!fed.has(layer)) {
      join(parent, layer);
    }
    if (!feeds.has(layer)) {
      lasts.set(parent, [...(lasts.get(parent) ?? []), layer]);
    }
  });
  edges.source.forEach((source, edge) => {
    for (const end of innermost(source, lasts)) {
      join(end, edges.target[edge]);
    }
  });
  return [from, to];
}

function innermost(layer: number, lasts: Map<number, number[]>): number[] {
  const inside = lasts.get(layer);
  return inside ? inside.flatMap((last) => innermost(last, lasts)) : [layer];
}
