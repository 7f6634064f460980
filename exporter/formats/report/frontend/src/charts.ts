// Parameters, MACs and memory from the first layer to the last; neighbours are joined where there are many.

import * as Plot from "@observablehq/plot";
import { html, render } from "lit";

import { amount, bytes, plural, share, shortened, sum } from "./format";
import { plotted } from "./plots";
import type { State } from "./state";

const MOST_BARS = 400;
const LARGEST = 5;

interface Chart {
  title: string;
  about: string;
  values: (number | null)[];
  format: (value: number | null) => string;
  /** Whether joined layers are added up; of what is needed at once, the most counts. */
  adds: boolean;
}

interface Bar {
  from: number;
  to: number;
  value: number;
  title: string;
}

export function charts(host: HTMLElement, state: State): void {
  const { layers } = state.model;
  const drawn = drawnLayers(state);
  const all: Chart[] = [
    { title: "Parameters", about: "of each layer", values: layers.params_total, format: amount, adds: true },
    { title: "MACs", about: "multiply-accumulate operations of each layer in one run", values: layers.macs, format: amount, adds: true },
    { title: "Activation memory", about: "bytes of layer outputs that are needed while each layer runs", values: layers.live_bytes, format: bytes, adds: false },
    { title: "Outputs", about: "bytes that each layer puts out", values: layers.activation_bytes, format: bytes, adds: true },
  ];
  const known = all.filter(({ values }) => drawn.some((layer) => values[layer] != null));
  render(
    html`${known.map((chart) => html`<figure class="chart">
      <h3>${chart.title}</h3>
      <p class="note">${chart.about}</p>
      <div class="plot"></div>
      <figcaption>Largest: ${largest(state, drawn, chart)}</figcaption>
    </figure>`)}`,
    host,
  );
  const plots = host.querySelectorAll<HTMLElement>(".plot");
  const bars = known.map((chart) => joined(state, drawn, chart));
  const draw = () => plots.forEach((plot, place) => plot.replaceChildren(picture(known[place], bars[place], drawn.length, plot.clientWidth)));
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth !== width) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
}

/** The layers that are boxes, or in one, in the model's own order: nothing is counted twice. */
function drawnLayers({ model, outline }: State): number[] {
  return model.layers.name.map((_, layer) => layer).filter((layer) => {
    const [item] = outline.drawn(layer) === layer ? outline.place(layer) : [-1];
    return item >= 0 && !outline.isBlock(item);
  });
}

function joined({ model: { layers } }: State, drawn: number[], chart: Chart): Bar[] {
  const size = Math.ceil(drawn.length / MOST_BARS);
  const bars: Bar[] = [];
  for (let from = 0; from < drawn.length; from += size) {
    const part = drawn.slice(from, from + size);
    const values = part.map((layer) => chart.values[layer] ?? 0);
    const value = chart.adds ? sum(values)! : Math.max(...values);
    const ends = part.length > 1 ? `${plural(part.length, "layer")} from ` : "";
    bars.push({ from, to: from + part.length, value, title: `${ends}${layers.key[part[0]]}\n${chart.format(value)}` });
  }
  return bars;
}

function picture(chart: Chart, bars: Bar[], layers: number, width: number): Element {
  const fill = "var(--accent)";
  return plotted({
    ariaLabel: `${chart.title} over ${plural(layers, "layer")}`,
    width: Math.max(width, 280),
    height: 190,
    marginLeft: 64,
    x: { label: "layer", domain: [0, Math.max(layers, 1)] },
    y: { label: null, grid: true, tickFormat: (value: number) => chart.format(value) , ticks: 4 },
    marks: [
      Plot.rectY(bars, { x1: "from", x2: "to", y: "value", fill, title: "title", tip: true, insetRight: bars.length > 200 ? 0 : 0.5 }),
      Plot.ruleY([0]),
    ],
  });
}

function largest(state: State, drawn: number[], chart: Chart) {
  const { layers } = state.model;
  const whole = sum(drawn.map((layer) => chart.values[layer])) ?? 0;
  const first = drawn.filter((layer) => chart.values[layer]).sort((one, other) => chart.values[other]! - chart.values[one]!);
  const show = (layer: number) => {
    state.chooseLayer(layer);
    document.getElementById("graph")?.scrollIntoView();
  };
  return first.slice(0, LARGEST).map((layer, place) => html`${place ? ", " : ""}<button class="link" @click=${() => show(layer)}>
    ${shortened(layers.key[layer], 40)}</button> ${chart.format(chart.values[layer])}${chart.adds ? ` (${share(chart.values[layer], whole)})` : ""}`);
}
