// All weights; with statistics, their histograms and what was counted in them.

import * as Plot from "@observablehq/plot";
import { render } from "lit";

import { bytes, decimal, plural, sum, whole } from "./format";
import { makeGrid, numeric, printable, text } from "./grid";
import { histogram, histogramText } from "./histogram";
import { plotted } from "./plots";
import type { State } from "./state";

type Numbers = (number | null)[];

export function weightTable(host: HTMLElement, state: State): void {
  const { weights, layers } = state.model;
  const figure = document.createElement("figure");
  figure.className = "weight-figure";
  figure.setAttribute("aria-live", "polite");
  const measured = weights.counts !== undefined;
  const grid = makeGrid(host, {
    label: "Weights",
    size: weights.name.length,
    columns: [
      text("Weight", weights.name, { flex: 3, minWidth: 220 }),
      text("Shape", weights.shape, { flex: 1.5, minWidth: 140 }),
      text("Type", weights.dtype, { width: 96, flex: 0 }),
      numeric("Elements", weights.elements, whole),
      ...(measured ? statistics(state) : [numeric("Bytes", weights.nbytes, bytes), text("Layer", weights.layer.map((at) => layers.key[at] ?? ""))]),
    ],
    choose: (at) => (measured ? draw(figure, state, at) : state.chooseLayer(weights.layer[at])),
    summary: (shown) => {
      const size = bytes(sum(shown.map((at) => weights.nbytes[at])) ?? 0);
      return `${whole(shown.length)} of ${plural(weights.name.length, "weight")}, ${size}`;
    },
  });
  if (measured) {
    host.append(figure);
    const largest = weights.elements.indexOf(Math.max(...weights.elements.slice(0, 10_000)));
    draw(figure, state, largest);
  } else {
    const note = Object.assign(document.createElement("p"), { className: "note" });
    note.textContent = "Histograms and counts of NaN, zeros and dead filters come with the option --stats.";
    host.append(note);
  }
  const cells = (at: number) => [weights.name[at], weights.shape[at], weights.dtype[at], ...printed(state, at)];
  const heads = measured ? ["Mean", "Deviation", "Minimum", "Maximum", "NaN"] : ["Elements", "Bytes"];
  printable("All weights", grid, ["Weight", "Shape", "Type", ...heads], cells);
}

function statistics(state: State) {
  const { weights } = state.model;
  const column = (title: string, values: Numbers | undefined, format: (value: number | null) => string) =>
    numeric(title, values ?? [], format, { width: 112 });
  return [
    {
      headerName: "Histogram",
      colId: "Histogram",
      width: 156,
      filter: false,
      sortable: false,
      cellRenderer: ({ data }: { data: { at: number } }) => {
        const cell = document.createElement("span");
        render(histogram(weights, data.at), cell);
        return cell;
      },
    },
    column("Mean", weights.mean, decimal),
    column("Deviation", weights.std, decimal),
    column("Minimum", weights.min, decimal),
    column("Maximum", weights.max, decimal),
    column("Zeros", weights.zeros, whole),
    column("NaN", weights.nans, whole),
    column("Infinite", weights.infs, whole),
    column("Dead filters", weights.dead_filters, whole),
  ];
}

function printed({ model: { weights } }: State, at: number): string[] {
  if (weights.counts === undefined) {
    return [whole(weights.elements[at]), bytes(weights.nbytes[at])];
  }
  const values = [weights.mean, weights.std, weights.min, weights.max].map((column) => decimal(column?.[at]));
  return [...values, whole(weights.nans?.[at])];
}

function draw(figure: HTMLElement, state: State, at: number): void {
  const { weights } = state.model;
  const counts = weights.counts?.[at];
  const caption = document.createElement("figcaption");
  caption.textContent = `${weights.name[at]}: ${weights.shape[at]} ${weights.dtype[at]}. ${histogramText(weights, at)}.`;
  const show = document.createElement("button");
  show.textContent = "Show its layer";
  show.addEventListener("click", () => {
    state.chooseLayer(weights.layer[at]);
    document.getElementById("graph")?.scrollIntoView();
  });
  figure.replaceChildren(caption, show);
  if (counts) {
    figure.prepend(bars(counts, weights.low![at]!, weights.high![at]!, caption.textContent));
  }
}

function bars(counts: number[], low: number, high: number, label: string): Element {
  const half = high > low ? 0 : Math.abs(low) / 2 || 0.5;
  const step = (high - low + 2 * half) / counts.length;
  const rows = counts.map((count, place) => ({ from: low - half + place * step, to: low - half + (place + 1) * step, count }));
  return plotted({
    ariaLabel: label,
    width: 640,
    height: 220,
    marginLeft: 64,
    x: { label: "value" },
    y: { label: "elements", grid: true, tickFormat: "~s" },
    marks: [
      Plot.rectY(rows, { x1: "from", x2: "to", y: "count", fill: "var(--accent)", insetRight: 0.5, tip: true }),
      Plot.ruleY([0]),
    ],
  });
}
