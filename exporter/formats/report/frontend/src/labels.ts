// The lines of text in a box, and how wide they are.

import { amount, plural, shortened } from "./format";
import type { Outline } from "./outline";

export interface Line {
  text: string;
  style: "name" | "bold" | "small";
  badge?: string;
}

const LONGEST = 40;
const FONTS = { name: 11, bold: 13, small: 11 };
const FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

const context = document.createElement("canvas").getContext("2d")!;

export function measure(line: Line): number {
  context.font = `${line.style === "bold" ? "600 " : ""}${FONTS[line.style]}px ${FAMILY}`;
  const width = context.measureText(line.text).width;
  return line.badge ? width + 8 + context.measureText(line.badge).width * 1.3 : width;
}

export function badge(times: number): string | undefined {
  return times > 1 ? `×${times}` : undefined;
}

/** Name; the words of the chain; what comes out and what it costs. */
export function boxLines(outline: Outline, item: number): Line[] {
  const { layers, items } = outline;
  const head = outline.head(item);
  const lines: Line[] = [{ text: shortened(layers.name[head], LONGEST), style: "name", badge: badge(items.times[item]) }];
  for (const text of wrapped(items.rows[item].map((row) => shortened(layers.label[row[0]], LONGEST)))) {
    lines.push({ text, style: "bold" });
  }
  const last = items.rows[item].at(-1)![0];
  const params = items.rows[item].reduce((sum, row) => sum + layers.params_total[row[0]], 0);
  lines.push({ text: shortened(facts(layers.outputs[last], params), 60), style: "small" });
  return lines;
}

/** Title and number of copies; the classes inside; what comes out and what all copies cost. */
export function blockLines(outline: Outline, item: number): Line[] {
  const { layers, items } = outline;
  const counts = new Map<string, number>();
  let last = -1;
  for (const layer of innerFirsts(outline, item)) {
    counts.set(layers.class[layer], (counts.get(layers.class[layer]) ?? 0) + 1);
    last = layer;
  }
  const common = [...counts].sort((one, other) => other[1] - one[1]);
  const listed = common.slice(0, 3).map(([name, count]) => (count > 1 ? `${name} ×${count}` : name));
  const more = common.length > 3 ? `, ${plural(common.length - 3, "more kind")}` : "";
  return [
    { text: shortened(items.title[item], 56), style: "bold", badge: badge(items.times[item]) },
    { text: shortened(listed.join(", ") + more, 64), style: "small" },
    { text: shortened(facts(last < 0 ? "" : layers.outputs[last], outline.total(item, "params") ?? 0), 60), style: "small" },
  ];
}

/** The first copy of each layer that is drawn in a block, in order. */
function* innerFirsts(outline: Outline, block: number): Generator<number> {
  const stack = [...outline.children.get(block)!].reverse();
  while (stack.length) {
    const item = stack.pop()!;
    if (!outline.isBlock(item)) {
      yield* outline.items.rows[item].map((row) => row[0]);
    }
    stack.push(...[...(outline.children.get(item) ?? [])].reverse());
  }
}

function facts(output: string, params: number): string {
  return [output, params ? `${amount(params)} params` : ""].filter(Boolean).join(" · ");
}

function wrapped(words: string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const longer = `${lines.at(-1)} · ${word}`;
    if (lines.length && longer.length <= LONGEST) {
      lines[lines.length - 1] = longer;
    } else {
      lines.push(word);
    }
  }
  return lines;
}
