// Places the boxes of one opened level with dagre; what is inside of an open block has been placed before.

import dagre from "@dagrejs/dagre";

import { shortened } from "./format";
import type { Outline } from "./outline";
import { blockLines, boxLines, type Line, measure } from "./labels";
import type { Level, Stub } from "./wiring";

export interface PlacedBox {
  item: number;
  x: number;
  y: number;
  width: number;
  height: number;
  lines: Line[];
  inside?: Layout;
}

export interface PlacedStub {
  id: string;
  x: number;
  y: number;
  width: number;
  height: number;
  text: string;
  title: string;
  layers: number[];
}

export interface PlacedEdge {
  id: string;
  points: { x: number; y: number }[];
  edges: number[];
  dashed: boolean;
  text: string;
}

/** Coordinates of corners, from the level's own top left corner. */
export interface Layout {
  width: number;
  height: number;
  boxes: PlacedBox[];
  stubs: PlacedStub[];
  edges: PlacedEdge[];
}

export const HEADER = 34;
// More than so many boxes get a stub of their own each, where a shared one would have lines all over the picture.
const MOST_SHARED = 3;
const MARGIN = 14;
const STUB_HEIGHT = 20;
const LINE_HEIGHT = 16;
const PADDING = 9;

export class Layouter {
  private readonly known = new Map<number, Line[]>();

  constructor(
    private readonly outline: Outline,
    private readonly levels: Map<number, Level>,
    private readonly tensors: string[],
  ) {}

  private lines(item: number): Line[] {
    const known = this.known.get(item) ?? (this.outline.isBlock(item) ? blockLines : boxLines)(this.outline, item);
    this.known.set(item, known);
    return known;
  }

  level(block: number, open: Set<number>): Layout {
    const graph = new dagre.graphlib.Graph();
    graph.setGraph({ rankdir: "TB", nodesep: 22, ranksep: 30, edgesep: 12, marginx: MARGIN, marginy: MARGIN });
    graph.setDefaultEdgeLabel(() => ({}));
    const boxes = this.outline.children.get(block)!.map((item) => this.box(item, open));
    for (const box of boxes) {
      graph.setNode(`b${box.item}`, { width: box.width, height: box.height });
    }
    const { links, ins, outs } = this.levels.get(block)!;
    for (const link of links) {
      graph.setEdge(`b${link.from}`, `b${link.to}`, { weight: 2 });
    }
    const stubs = [...this.stubs(ins, "in"), ...this.stubs(outs, "out")];
    const stubEdges = stubs.flatMap(({ id, side, items }) =>
      items.map((item) => (side === "in" ? [id, `b${item}`] : [`b${item}`, id]) as [string, string]));
    for (const { id, width, height } of stubs) {
      graph.setNode(id, { width, height });
    }
    for (const [from, to] of stubEdges) {
      graph.setEdge(from, to, {});
    }
    dagre.layout(graph);
    const corner = <Kind extends { width: number; height: number }>(id: string, thing: Kind) => {
      const { x, y } = graph.node(id) as { x: number; y: number };
      return { ...thing, x: x - thing.width / 2, y: y - thing.height / 2 };
    };
    const points = (from: string, to: string) => (graph.edge(from, to) as { points: { x: number; y: number }[] }).points;
    const size = graph.graph() as { width?: number; height?: number };
    return {
      width: Math.max(size.width ?? 0, 60),
      height: Math.max(size.height ?? 0, 20),
      boxes: boxes.map((box) => corner(`b${box.item}`, box)),
      stubs: stubs.map((stub) => corner(stub.id, stub)),
      edges: [
        ...links.map((link) => ({
          id: `e${link.from}-${link.to}`,
          points: points(`b${link.from}`, `b${link.to}`),
          edges: link.edges,
          dashed: false,
          text: this.tensors[link.edges[0]],
        })),
        ...stubEdges.map(([from, to]) => ({
          id: `e${block} ${from} ${to}`,
          points: points(from, to),
          edges: [],
          dashed: true,
          text: "",
        })),
      ],
    };
  }

  private box(item: number, open: Set<number>): PlacedBox {
    const isBlock = this.outline.isBlock(item);
    const lines = this.lines(item);
    const width = Math.max(...lines.map((line) => measure(line))) + 2 * PADDING + 6;
    if (isBlock && open.has(item)) {
      const inside = this.level(item, open);
      const header = measure(lines[0]) + 60;
      return { item, x: 0, y: 0, lines, inside, width: Math.max(inside.width, header), height: inside.height + HEADER };
    }
    const room = isBlock ? 26 : 0;
    return { item, x: 0, y: 0, lines, width: width + room, height: lines.length * LINE_HEIGHT + 2 * PADDING };
  }

  /** One for each, or one for a few items to which the same comes in, or from which the same layers take. */
  private stubs(all: Stub[], side: "in" | "out"): (PlacedStub & { side: string; items: number[] })[] {
    const groups = new Map<string, Stub[]>();
    for (const stub of all) {
      const key = `${stub.copies} ${[...stub.layers].sort((one, other) => one - other).join(" ")}`;
      groups.set(key, [...(groups.get(key) ?? []), stub]);
    }
    const joined = [...groups.values()].flatMap((group) => (group.length > MOST_SHARED ? group.map((stub) => [stub]) : [group]));
    return joined.map((group) => ({ ...this.stub(group[0], side), side, items: group.map(({ item }) => item) }));
  }

  private stub(stub: Stub, side: "in" | "out"): PlacedStub {
    const names = [...stub.layers].map((layer) => this.outline.layers.name[layer]);
    const copy = side === "in" ? "the copy before" : "the next copy";
    const all = stub.copies ? [...names, copy] : names;
    const few = all.length > 2 ? `${shortened(all[0], 22)} + ${all.length - 1} more` : all.map((name) => shortened(name, 30)).join(", ");
    const text = side === "in" ? `from ${few}` : `to ${few}`;
    const width = measure({ text, style: "small" }) + 16;
    const title = `${side === "in" ? "From" : "To"} ${all.slice(0, 30).join(", ")}${all.length > 30 ? ", …" : ""}`;
    return { id: `${side}${stub.item}`, x: 0, y: 0, width, height: STUB_HEIGHT, text, title, layers: [...stub.layers] };
  }
}
