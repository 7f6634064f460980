// The graph of folded blocks as SVG: boxes are buttons that a mouse, the keyboard and a screen reader can use.

import { html, nothing, render, svg, type SVGTemplateResult } from "lit";
import { guard } from "lit/directives/guard.js";
import { repeat } from "lit/directives/repeat.js";

import { details } from "./details";
import { HEADER, type Layout, Layouter, type PlacedBox, type PlacedEdge, type PlacedStub } from "./layout";
import { OUTSIDE } from "./outline";
import { type Placed, Shapes } from "./shapes";
import type { Colouring, State } from "./state";
import { wire } from "./wiring";

const ZOOM_STEP = 1.25;
const ZOOMS = [0.2, 4];
// Below this zoom the small type cannot be read; what does not fit is scrolled.
const SMALLEST_TEXT = 0.6;
// Beside an opened block, in CSS pixels.
const SPACE = 24;

/** The things of a layout and of all that is open inside, with their places in the picture. */
interface Flat {
  boxes: Placed<PlacedBox>[];
  stubs: Placed<PlacedStub>[];
  edges: Placed<PlacedEdge>[];
}

export class GraphView {
  private readonly layouter: Layouter;
  private layout: Layout;
  private zoom = 1;
  private readonly shapes: Shapes;

  constructor(private readonly host: HTMLElement, private readonly state: State) {
    const levels = wire(state.outline, state.model.edges);
    this.layouter = new Layouter(state.outline, levels, state.model.edges.tensor);
    this.layout = this.layouter.level(OUTSIDE, state.open);
    this.shapes = new Shapes(state, (item) => this.activate(item));
    this.shapes.focus = state.outline.children.get(OUTSIDE)![0] ?? -1;
    state.listen((change) => {
      const before = this.anchor();
      if (change === "open") {
        this.layout = this.layouter.level(OUTSIDE, state.open);
      }
      this.shapes.mark();
      this.draw();
      if (change === "open" || change === "choice") {
        this.keepInView(before);
      }
    });
    this.draw();
    this.zoom = this.readable();
    this.draw();
  }

  private flat(): Flat {
    const flat: Flat = { boxes: [], stubs: [], edges: [] };
    const add = (layout: Layout, x: number, y: number) => {
      flat.edges.push(...layout.edges.map((thing) => ({ thing, x, y })));
      flat.stubs.push(...layout.stubs.map((thing) => ({ thing, x: x + thing.x, y: y + thing.y })));
      for (const thing of layout.boxes) {
        flat.boxes.push({ thing, x: x + thing.x, y: y + thing.y });
        if (thing.inside) {
          add(thing.inside, x + thing.x + (thing.width - thing.inside.width) / 2, y + thing.y + HEADER);
        }
      }
    };
    add(this.layout, 0, 0);
    return flat;
  }

  private draw(): void {
    const { state } = this;
    const chosen = state.item >= 0;
    const working = state.marks !== null || state.start !== null;
    render(
      html`
        <div class="toolbar" role="toolbar" aria-label="Graph">
          <button @click=${() => this.scale(1 / ZOOM_STEP)} aria-label="Smaller">−</button>
          <button @click=${() => this.scale(ZOOM_STEP)} aria-label="Larger">+</button>
          <button @click=${() => this.fit()}>Fit</button>
          <button @click=${() => state.closeAll()} ?disabled=${!state.open.size}>Close all</button>
          <label>Colours
            <select @change=${(event: Event) => state.colour((event.target as HTMLSelectElement).value as Colouring)}>
              <option value="kind">kind of layer</option>
              <option value="params">parameters</option>
              <option value="macs">MACs</option>
              <option value="activation_bytes">activation memory</option>
            </select>
          </label>
          <button @click=${() => state.clearMarks()} ?disabled=${!working}>Clear path</button>
          <button class="screen-only" @click=${() => this.host.requestFullscreen()}>Full screen</button>
        </div>
        <p class="status" role="status" id="graph-status">${state.message}</p>
        <div class="graph-row ${chosen ? "with-details" : ""}">
          <div class="canvas" @wheel=${(event: WheelEvent) => this.wheel(event)} @keydown=${(event: KeyboardEvent) => this.key(event)}>
            ${this.picture()}
          </div>
          ${chosen ? html`<aside class="details" aria-label="Details">
            ${guard([state.item, state.copy, state.start], () => details(state))}</aside>` : nothing}
        </div>
        <p class="note" id="graph-help">
          Enter or click opens a block or shows a layer. Arrow keys follow the connections, Escape closes the block
          around, + and − zoom, as does the wheel with Ctrl.
        </p>
      `,
      this.host,
    );
  }

  private picture(): SVGTemplateResult {
    const flat = this.flat();
    const frames = flat.boxes.filter(({ thing }) => thing.inside);
    const boxes = flat.boxes.filter(({ thing }) => !thing.inside);
    const { width, height } = this.layout;
    return html`
      <svg id="picture" role="group" aria-label="Graph of layers" aria-describedby="graph-help"
        class=${this.state.marks ? "marking" : ""} viewBox="0 0 ${width} ${height}"
        width=${width * this.zoom} height=${height * this.zoom}>
        <defs>
          ${["arrow", "marked-arrow"].map((id) => svg`
            <marker id=${id} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" orient="auto" markerUnits="userSpaceOnUse">
              <path d="M0 0 L8 4 L0 8 z"></path>
            </marker>`)}
        </defs>
        ${repeat(frames, ({ thing }) => thing.item, (placed) => this.shapes.frame(placed))}
        ${repeat(flat.edges, ({ thing }) => thing.id, (placed) => this.shapes.edge(placed))}
        ${repeat(flat.stubs, ({ thing }) => thing.id, (placed) => this.shapes.stub(placed))}
        ${repeat(boxes, ({ thing }) => thing.item, (placed) => this.shapes.box(placed))}
      </svg>` as unknown as SVGTemplateResult;
  }

  private activate(item: number): void {
    this.shapes.focus = item;
    if (this.state.outline.isBlock(item) && !this.state.start) {
      this.state.toggle(item);
    } else {
      this.state.choose(item);
    }
  }

  // Zoom and place.

  private get canvas(): HTMLElement {
    return this.host.querySelector(".canvas")!;
  }

  /** At its natural size, or smaller if only then the whole width is seen. */
  private readable(): number {
    return Math.min(1, Math.max(SMALLEST_TEXT, this.canvas.clientWidth / this.layout.width));
  }

  /** The whole picture, if it can be read at that size. */
  private fit(): void {
    const { clientWidth, clientHeight } = this.canvas;
    const whole = Math.min(clientWidth / this.layout.width, clientHeight / this.layout.height);
    this.zoom = Math.min(1, Math.max(whole, ZOOMS[0]));
    this.draw();
    this.canvas.scrollTo(0, 0);
  }

  private scale(factor: number): void {
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.canvas;
    const before = this.zoom;
    this.zoom = Math.min(ZOOMS[1], Math.max(ZOOMS[0], this.zoom * factor));
    this.draw();
    const grown = this.zoom / before;
    this.canvas.scrollLeft = (scrollLeft + clientWidth / 2) * grown - clientWidth / 2;
    this.canvas.scrollTop = (scrollTop + clientHeight / 2) * grown - clientHeight / 2;
  }

  private wheel(event: WheelEvent): void {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.scale(event.deltaY < 0 ? 1.1 : 1 / 1.1);
    }
  }

  private element(item: number): SVGGElement | null {
    return this.host.querySelector(`[data-item="${item}"]`);
  }

  /** Where on the screen the chosen box is; after a new layout it should still be there. */
  private anchor(): DOMRect | null {
    return this.element(this.state.item)?.getBoundingClientRect() ?? null;
  }

  private keepInView(before: DOMRect | null): void {
    const { item } = this.state;
    if (item < 0) {
      return;
    }
    const hadFocus = this.canvas.contains(document.activeElement) || document.activeElement === document.body;
    this.shapes.focus = item;
    this.draw();
    const element = this.element(item);
    const after = element?.getBoundingClientRect();
    if (before && after) {
      this.canvas.scrollLeft += after.left - before.left;
      this.canvas.scrollTop += after.top - before.top;
    }
    if (this.state.open.has(item)) {
      this.showInside(item);
    } else {
      scrollTo(element);
    }
    if (hadFocus) {
      element?.focus({ preventScroll: true });
    }
  }

  /** Scrolls, and zooms out if need be, until an opened block is seen, or as much of it as fits. */
  private showInside(item: number): void {
    const { canvas } = this;
    const { width } = this.flat().boxes.find(({ thing }) => thing.item === item)!.thing;
    const wanted = canvas.clientWidth / (width + 2 * SPACE);
    if (wanted < this.zoom) {
      this.zoom = Math.max(SMALLEST_TEXT, wanted);
      this.draw();
    }
    const frame = this.element(item)!.parentElement!.getBoundingClientRect();
    const view = canvas.getBoundingClientRect();
    if (frame.left < view.left || frame.right > view.right) {
      canvas.scrollLeft += frame.left - view.left - Math.max(SPACE, (canvas.clientWidth - frame.width) / 2);
    }
    if (frame.top < view.top || frame.bottom > view.bottom) {
      canvas.scrollTop += frame.top - view.top - SPACE;
    }
  }

  // Keyboard.

  private key(event: KeyboardEvent): void {
    const action = this.actions()[event.key];
    if (action && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      action();
    }
  }

  private actions(): Record<string, () => void> {
    return {
      Enter: () => this.activate(this.shapes.focus),
      " ": () => this.activate(this.shapes.focus),
      Escape: () => this.closeAround(),
      ArrowDown: () => this.move(0, 1),
      ArrowUp: () => this.move(0, -1),
      ArrowLeft: () => this.move(-1, 0),
      ArrowRight: () => this.move(1, 0),
      Home: () => this.moveTo(this.flat().boxes[0]?.thing.item),
      End: () => this.moveTo(this.flat().boxes.at(-1)?.thing.item),
      "+": () => this.scale(ZOOM_STEP),
      "-": () => this.scale(1 / ZOOM_STEP),
    };
  }

  private closeAround(): void {
    const { state } = this;
    const path = state.outline.path(this.shapes.focus);
    const open = path.filter((item) => state.open.has(item)).at(-1);
    if (open !== undefined) {
      this.shapes.focus = open;
      state.toggle(open);
    }
  }

  /** The box that is nearest in a direction; along it counts less than across, so that lines are followed. */
  private move(right: number, down: number): void {
    const boxes = this.flat().boxes.map(({ thing, x, y }) => ({
      item: thing.item,
      x: x + (thing.inside ? Math.min(thing.width, 80) : thing.width) / 2,
      y: y + (thing.inside ? HEADER : thing.height) / 2,
    }));
    const here = boxes.find(({ item }) => item === this.shapes.focus) ?? boxes[0];
    let [best, least] = [-1, Infinity];
    for (const { item, x, y } of boxes) {
      const along = (x - here.x) * right + (y - here.y) * down;
      const across = Math.abs((x - here.x) * down) + Math.abs((y - here.y) * right);
      // Sideways a box has to be about level with this one.
      const distance = along + (down ? 0.5 : 2) * across;
      if (item !== here.item && along > 4 && distance < least) {
        [best, least] = [item, distance];
      }
    }
    this.moveTo(best);
  }

  private moveTo(item: number | undefined): void {
    if (item !== undefined && item >= 0) {
      this.shapes.focus = item;
      this.draw();
      this.element(item)?.focus({ preventScroll: true });
      scrollTo(this.element(item));
    }
  }
}

function scrollTo(element: Element | null): void {
  element?.scrollIntoView({ block: "nearest", inline: "nearest" });
}
