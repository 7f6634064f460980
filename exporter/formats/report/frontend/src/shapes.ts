// How boxes, frames, stubs and edges look, and what they are called for a screen reader.

import { nothing, svg, type SVGTemplateResult } from "lit";

import type { Line } from "./labels";
import { HEADER, type PlacedBox, type PlacedEdge, type PlacedStub } from "./layout";
import { OUTSIDE } from "./outline";
import type { State } from "./state";

export interface Placed<Kind> {
  thing: Kind;
  x: number;
  y: number;
}

export class Shapes {
  /** The one box that Tab reaches; arrows go on from there. */
  focus = -1;
  private marked = new Set<number>();

  constructor(private readonly state: State, private readonly activate: (item: number) => void) {}

  /** Marks the boxes, and the blocks around them, of the layers that are marked. */
  mark(): void {
    const items = new Set<number>();
    for (const layer of this.state.marks ?? []) {
      const [item] = this.state.outline.place(layer);
      for (let at = item; at >= 0 && !items.has(at); at = this.state.model.items.parent[at]) {
        items.add(at);
      }
    }
    this.marked = items;
  }

  frame({ thing, x, y }: Placed<PlacedBox>): SVGTemplateResult {
    return svg`
      <g class="frame ${this.classes(thing.item)}" transform="translate(${x} ${y})">
        <rect class="area" width=${thing.width} height=${thing.height} rx="8"></rect>
        <g class="header" role="button" aria-expanded="true" data-item=${thing.item} aria-label=${this.label(thing)}
          tabindex=${this.tabindex(thing.item)} @click=${() => this.activate(thing.item)}>
          <rect width=${thing.width} height=${HEADER - 6} rx="8"></rect>
          <text x="12" y="19" class="bold">${thing.lines[0].text}</text>
          ${badgeText(thing.lines[0], thing.width - 34, 19)}
          <text x=${thing.width - 20} y="20" class="sign" aria-hidden="true">−</text>
        </g>
      </g>`;
  }

  box({ thing, x, y }: Placed<PlacedBox>): SVGTemplateResult {
    const isBlock = this.state.outline.isBlock(thing.item);
    const times = this.state.model.items.times[thing.item];
    const { width, height } = thing;
    return svg`
      <g class="box ${isBlock ? "block" : "layer"} ${this.classes(thing.item)}" style=${this.heat(thing.item)}
        transform="translate(${x} ${y})" role="button" data-item=${thing.item}
        aria-expanded=${isBlock ? "false" : nothing} aria-pressed=${isBlock ? nothing : String(thing.item === this.state.item)}
        aria-label=${this.label(thing)} tabindex=${this.tabindex(thing.item)} @click=${() => this.activate(thing.item)}>
        <title>${this.state.nameOf(thing.item)}</title>
        ${times > 1 ? svg`<rect class="behind" x="5" y="5" width=${width} height=${height} rx="6"></rect>` : nothing}
        <rect class="face" width=${width} height=${height} rx="6"></rect>
        <path class="stripe" d="M6 0 h-0 a6 6 0 0 0 -6 6 v${height - 12} a6 6 0 0 0 6 6 z"></path>
        ${thing.lines.map((line, place) => svg`<text x="14" y=${20 + 16 * place} class=${line.style}>${line.text}</text>
          ${badgeText(line, width - (isBlock ? 28 : 8), 20)}`)}
        ${isBlock ? svg`<text x=${width - 19} y="21" class="sign" aria-hidden="true">+</text>` : nothing}
      </g>`;
  }

  stub({ thing, x, y }: Placed<PlacedStub>): SVGTemplateResult {
    const goes = thing.layers.length > 0;
    return svg`
      <g class="stub ${goes ? "goes" : ""}" transform="translate(${x} ${y})"
        @click=${() => goes && this.state.chooseLayer(thing.layers[0])}>
        <title>${thing.title}</title>
        <rect width=${thing.width} height=${thing.height} rx="10"></rect>
        <text x=${thing.width / 2} y="14" class="small">${thing.text}</text>
      </g>`;
  }

  edge({ thing, x, y }: Placed<PlacedEdge>): SVGTemplateResult {
    const more = thing.edges.length > 1 ? ` (and ${thing.edges.length - 1} more)` : "";
    const title = thing.text ? svg`<title>${thing.text}${more}</title>` : nothing;
    const marked = this.isMarked(thing) ? "marked" : "";
    return svg`
      <g class="edge ${thing.dashed ? "dashed" : ""} ${marked}" transform="translate(${x} ${y})">
        <path d=${curve(thing.points)} marker-end="url(#${marked ? "marked-arrow" : "arrow"})">${title}</path>
      </g>`;
  }

  private label(box: PlacedBox): string {
    const path = this.marked.has(box.item) ? ", on the marked path" : "";
    return box.lines.map(({ text, badge }) => (badge ? `${text}, ${badge}` : text)).join(", ") + path;
  }

  private classes(item: number): string {
    const { state } = this;
    const kind = state.outline.isBlock(item) ? "" : `kind-${state.model.layers.kind[state.outline.head(item)]}`;
    const chosen = item === state.item ? "chosen" : "";
    return `${state.colouring === "kind" ? kind : "heat"} ${chosen} ${this.marked.has(item) ? "marked" : ""}`;
  }

  /** The part of the whole model's cost that a box has, its root taken so that small parts can be told apart. */
  private heat(item: number): string {
    const { outline, colouring } = this.state;
    if (colouring === "kind") {
      return "";
    }
    const whole = outline.children.get(OUTSIDE)!.reduce((sum, child) => sum + (outline.total(child, colouring) ?? 0), 0);
    const part = outline.total(item, colouring) ?? 0;
    return `--heat: ${whole ? (100 * Math.sqrt(part / whole)).toFixed(1) : 0}%`;
  }

  private isMarked(edge: PlacedEdge): boolean {
    const { marks, model } = this.state;
    return marks !== null && edge.edges.some((row) => marks.has(model.edges.source[row]) && marks.has(model.edges.target[row]));
  }

  private tabindex(item: number): number {
    return item === this.focus ? 0 : -1;
  }
}

function badgeText(line: Line, right: number, y: number): SVGTemplateResult | typeof nothing {
  return line.badge ? svg`<text x=${right} y=${y} class="badge">${line.badge}</text> ` : nothing;
}

/** A smooth line through dagre's points. */
function curve(points: { x: number; y: number }[]): string {
  const [first, ...rest] = points;
  let path = `M${first.x.toFixed(1)} ${first.y.toFixed(1)}`;
  for (let place = 0; place < rest.length - 1; place++) {
    const [control, next] = [rest[place], rest[place + 1]];
    const isLast = place === rest.length - 2;
    const [x, y] = isLast ? [next.x, next.y] : [(control.x + next.x) / 2, (control.y + next.y) / 2];
    path += ` Q${control.x.toFixed(1)} ${control.y.toFixed(1)} ${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return rest.length === 1 ? `${path} L${rest[0].x.toFixed(1)} ${rest[0].y.toFixed(1)}` : path;
}

