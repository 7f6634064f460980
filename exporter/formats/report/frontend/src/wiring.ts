// Which edges each level shows: those between its own boxes, and stubs for what comes in and goes out.

import type { Edges } from "./data";
import { OUTSIDE, type Outline } from "./outline";

/** Between two items of one level; `edges` are rows of the edge table. */
export interface Link {
  from: number;
  to: number;
  edges: number[];
}

/** What enters or leaves an item of a level: the layers at the other ends, and whether the next copy is one. */
export interface Stub {
  item: number;
  layers: Set<number>;
  copies: boolean;
}

export interface Level {
  links: Link[];
  ins: Stub[];
  outs: Stub[];
}

// An output with more uses than this on one level gets a stub for each.
const FAN_OUT = 8;
// More lines than this on one level are no picture any more.
const MOST_LINKS = 100;

class Draft {
  links = new Map<string, Link>();
  ins = new Map<number, Stub>();
  outs = new Map<number, Stub>();

  link(from: number, to: number, edge: number): void {
    const key = `${from} ${to}`;
    const link = this.links.get(key) ?? { from, to, edges: [] };
    this.links.set(key, link);
    link.edges.push(edge);
  }

  stub(side: Map<number, Stub>, item: number, layer: number, copies: boolean): void {
    const stub = side.get(item) ?? { item, layers: new Set<number>(), copies: false };
    side.set(item, stub);
    if (copies) {
      stub.copies = true;
    } else {
      stub.layers.add(layer);
    }
  }

  /** `items` are those of the level, in order. */
  finished(edges: Edges, items: number[]): Level {
    const uses = new Map<number, number>();
    for (const { from } of this.links.values()) {
      uses.set(from, (uses.get(from) ?? 0) + 1);
    }
    const crowded = this.links.size > MOST_LINKS;
    const links = [...this.links.values()];
    const order = new Map(items.map((item, place) => [item, place]));
    const far = (link: Link) => crowded && order.get(link.to)! - order.get(link.from)! > 1;
    const cut = new Set(links.filter((link) => uses.get(link.from)! > FAN_OUT || far(link)));
    for (const link of cut) {
      link.edges.forEach((edge) => this.stub(this.ins, link.to, edges.source[edge], false));
    }
    return { links: links.filter((link) => !cut.has(link)), ins: [...this.ins.values()], outs: [...this.outs.values()] };
  }
}

export function wire(outline: Outline, edges: Edges): Map<number, Level> {
  const drafts = new Map<number, Draft>([...outline.children.keys()].map((block) => [block, new Draft()]));
  for (let edge = 0; edge < edges.source.length; edge++) {
    addEdge(outline, drafts, edges, edge);
  }
  return new Map([...drafts].map(([block, draft]) => [block, draft.finished(edges, outline.children.get(block)!)]));
}

function addEdge(outline: Outline, drafts: Map<number, Draft>, edges: Edges, edge: number): void {
  const [from, fromCopy] = outline.place(edges.source[edge]);
  const [to, toCopy] = outline.place(edges.target[edge]);
  if (from < 0 || to < 0 || (from === to && fromCopy === toCopy)) {
    return;
  }
  const [before, after] = [outline.path(from), outline.path(to)];
  const [shared, repeats] = common(outline, before, fromCopy, after, toCopy);
  if (!repeats && shared < before.length && shared < after.length) {
    drafts.get(shared ? before[shared - 1] : OUTSIDE)!.link(before[shared], after[shared], edge);
  }
  // Between copies of a block the first level that can show anything is the block's own inside.
  const first = repeats ? shared : shared + 1;
  for (let place = first; place < after.length; place++) {
    const draft = drafts.get(after[place - 1])!;
    draft.stub(draft.ins, after[place], edges.source[edge], repeats);
  }
  for (let place = first; place < before.length; place++) {
    const draft = drafts.get(before[place - 1])!;
    draft.stub(draft.outs, before[place], edges.target[edge], repeats);
  }
}

/** How many blocks are around both ends, and whether the ends are in different copies of the innermost of those. */
function common(
  outline: Outline, before: number[], fromCopy: number, after: number[], toCopy: number,
): [shared: number, repeats: boolean] {
  const times = outline.items.times;
  let fromBelow = before.reduce((product, item) => product * times[item], 1);
  let toBelow = after.reduce((product, item) => product * times[item], 1);
  let place = 0;
  while (place < before.length && place < after.length && before[place] === after[place]) {
    fromBelow /= times[before[place]];
    toBelow /= times[after[place]];
    place++;
    if (Math.floor(fromCopy / fromBelow) !== Math.floor(toCopy / toBelow)) {
      return [place, true];
    }
  }
  return [place, false];
}
