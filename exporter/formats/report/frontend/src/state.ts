// What is open, chosen and marked; every part of the page listens to it.

import type { Model } from "./data";
import { plural } from "./format";
import type { Outline } from "./outline";
import type { Paths } from "./paths";

export type Colouring = "kind" | "params" | "macs" | "activation_bytes";
export type Change = "open" | "choice" | "marks" | "colours";

export class State {
  readonly open = new Set<number>();
  /** The chosen item and the copy of it that is shown; -1 for none. */
  item = -1;
  copy = 0;
  /** Layers that are marked as a path; null when none is. */
  marks: Set<number> | null = null;
  /** The layers from which a path is to be shown, when one end has been chosen. */
  start: { name: string; layers: number[] } | null = null;
  message = "";
  colouring: Colouring = "kind";
  private readonly listeners: ((change: Change) => void)[] = [];

  constructor(readonly model: Model, readonly outline: Outline, readonly paths: Paths) {}

  listen(listener: (change: Change) => void): void {
    this.listeners.push(listener);
  }

  private changed(change: Change, message: string): void {
    this.message = message;
    this.listeners.forEach((listener) => listener(change));
  }

  nameOf(item: number, copy = 0): string {
    if (this.outline.isBlock(item)) {
      return this.model.items.title[item];
    }
    const row = this.model.items.rows[item].find((layers) => layers[0] === this.outline.head(item))!;
    return this.model.layers.key[row[copy] ?? row[0]];
  }

  toggle(item: number): void {
    const opens = !this.open.has(item);
    this.open[opens ? "add" : "delete"](item);
    [this.item, this.copy] = [item, 0];
    const inside = this.outline.children.get(item)!.length;
    this.changed("open", opens ? `${this.nameOf(item)} opened, ${inside} boxes` : `${this.nameOf(item)} closed`);
  }

  closeAll(): void {
    this.open.clear();
    this.changed("open", "All blocks closed");
  }

  choose(item: number, copy = 0): void {
    const opened = this.reveal(item);
    [this.item, this.copy] = [item, copy];
    if (this.start && item >= 0) {
      this.finishPath();
    } else {
      this.changed(opened ? "open" : "choice", item < 0 ? "" : `${this.nameOf(item, copy)} chosen`);
    }
  }

  chooseLayer(layer: number): void {
    const [item, copy] = this.outline.place(layer);
    if (item >= 0) {
      this.choose(item, copy);
    }
  }

  /** Opens the blocks around an item. */
  private reveal(item: number): boolean {
    const closed = this.outline.path(item).slice(0, -1).filter((block) => !this.open.has(block));
    closed.forEach((block) => this.open.add(block));
    return closed.length > 0;
  }

  private layersOfChoice(): number[] {
    return [...this.outline.layersOf(this.item)];
  }

  startPath(): void {
    this.start = { name: this.nameOf(this.item, this.copy), layers: this.layersOfChoice() };
    this.changed("marks", `Choose where the path from ${this.start.name} ends`);
  }

  private finishPath(): void {
    const { name, layers } = this.start!;
    this.start = null;
    const ends = this.layersOfChoice();
    const found = this.paths.between(layers, ends);
    const turned = found.size ? found : this.paths.between(ends, layers);
    const there = this.nameOf(this.item, this.copy);
    if (turned.size) {
      this.mark(turned, found.size ? `from ${name} to ${there}` : `from ${there} to ${name}`);
    } else {
      this.marks = null;
      this.changed("open", `There is no path between ${name} and ${there}`);
    }
  }

  markUpstream(): void {
    this.mark(this.paths.upstream(this.layersOfChoice()), `upstream of ${this.nameOf(this.item)}`);
  }

  markDownstream(): void {
    this.mark(this.paths.downstream(this.layersOfChoice()), `downstream of ${this.nameOf(this.item)}`);
  }

  private mark(layers: Set<number>, what: string): void {
    this.marks = layers;
    this.changed("open", `${plural(layers.size, "layer")} ${what} ${layers.size === 1 ? "is" : "are"} marked`);
  }

  clearMarks(): void {
    [this.marks, this.start] = [null, null];
    this.changed("marks", "No path is marked");
  }

  colour(colouring: Colouring): void {
    this.colouring = colouring;
    this.changed("colours", "");
  }
}
