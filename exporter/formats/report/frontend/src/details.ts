// What is known about the chosen box: its layers, their settings, costs, neighbours and weights.

import { html, nothing, type TemplateResult } from "lit";

import { amount, bytes, plural, shortened, sum, whole } from "./format";
import { histogram } from "./histogram";
import type { State } from "./state";

const MOST_NAMES = 12;

export function details(state: State): TemplateResult {
  const { outline } = state;
  return html`
    <div class="details-head">
      <h3>${state.nameOf(state.item, state.copy)}</h3>
      <button @click=${() => state.choose(-1)} aria-label="Close the details">×</button>
    </div>
    <div class="actions">
      <button @click=${() => state.markUpstream()} title="All that this depends on">Upstream</button>
      <button @click=${() => state.markDownstream()} title="All that depends on this">Downstream</button>
      <button @click=${() => state.startPath()} aria-pressed=${state.start !== null}>Path from here…</button>
    </div>
    ${copies(state)}
    ${outline.isBlock(state.item) ? block(state) : state.model.items.rows[state.item].map((row) => layer(state, row[state.copy] ?? row[0]))}
  `;
}

function copies(state: State): TemplateResult | typeof nothing {
  const row = state.model.items.rows[state.item][0] ?? [];
  if (row.length < 2) {
    return nothing;
  }
  const choose = (event: Event) => state.choose(state.item, Number((event.target as HTMLSelectElement).value));
  return html`<label class="copies">Copy
    <select @change=${choose}>
      ${row.map((_, copy) => html`<option value=${copy} ?selected=${copy === state.copy} .selected=${copy === state.copy}>
        ${copy + 1} of ${row.length}: ${shortened(copyName(state, copy), 40)}</option>`)}
    </select></label>`;
}

function copyName(state: State, copy: number): string {
  const row = state.model.items.rows[state.item].find((layers) => layers[0] === state.outline.head(state.item));
  return state.model.layers.name[(row ?? state.model.items.rows[state.item][0])[copy]];
}

function block(state: State): TemplateResult {
  const { outline, model, item } = state;
  const rows = [
    ["Copies", model.items.times[item] > 1 ? whole(model.items.times[item]) : null],
    ["Boxes inside", whole(outline.children.get(item)!.length)],
    ["Parameters", whole(outline.total(item, "params") ?? 0)],
    ["MACs", amount(outline.total(item, "macs"))],
    ["Activations", bytes(outline.total(item, "activation_bytes"))],
  ];
  return html`${facts(rows)}${model.items.rows[item].map((row) => layer(state, row[state.copy] ?? row[0]))}`;
}

function facts(rows: (string | null)[][]): TemplateResult {
  return html`<dl class="facts">
    ${rows.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

function layer(state: State, at: number): TemplateResult {
  const { layers, edges } = state.model;
  const sources = neighbours(edges.target, edges.source, at);
  const targets = neighbours(edges.source, edges.target, at);
  return html`
    <section class="layer-facts">
      <h4>${layers.name[at]} <span>${layers.label[at]}</span></h4>
      ${facts([
        ["Class", layers.class[at]],
        ["Inputs", layers.inputs[at]],
        ["Outputs", layers.outputs[at]],
        ["Parameters", layers.params_total[at] ? `${whole(layers.params_total[at])}${layers.trainable[at] ? "" : ", frozen"}` : "0"],
        ["MACs", whole(layers.macs[at])],
        ["Activations", bytes(layers.activation_bytes[at])],
        ["Needed at once", layers.live_bytes[at] == null ? null : bytes(layers.live_bytes[at])],
        ["Calls", layers.calls[at] === 1 ? null : whole(layers.calls[at])],
        ["ONNX nodes", layers.nodes[at] == null ? null : whole(layers.nodes[at])],
        ["Settings", layers.settings[at]],
      ])}
      ${names(state, "From", sources)} ${names(state, "To", targets)} ${weights(state, at)}
    </section>`;
}

function neighbours(here: number[], there: number[], layer: number): number[] {
  const found = new Set<number>();
  for (let edge = here.indexOf(layer); edge >= 0; edge = here.indexOf(layer, edge + 1)) {
    found.add(there[edge]);
  }
  return [...found];
}

function names(state: State, side: string, layers: number[]): TemplateResult | typeof nothing {
  if (!layers.length) {
    return nothing;
  }
  const more = layers.length - MOST_NAMES;
  return html`<p class="neighbours"><b>${side}</b>
    ${layers.slice(0, MOST_NAMES).map((layer) => html`<button class="link" @click=${() => state.chooseLayer(layer)}>
      ${shortened(state.model.layers.name[layer], 40)}</button> `)}
    ${more > 0 ? `and ${more} more` : nothing}</p>`;
}

function weights(state: State, layer: number): TemplateResult | typeof nothing {
  const table = state.model.weights;
  const { parent } = state.model.layers;
  const isInside = (at: number): boolean => at === layer || (at >= 0 && isInside(parent[at]));
  const found = table.layer.map((_, weight) => weight).filter((weight) => isInside(table.layer[weight]));
  if (!found.length || state.outline.isBlock(state.item)) {
    return nothing;
  }
  const total = sum(found.map((weight) => table.nbytes[weight]));
  return html`<h5>${plural(found.length, "weight")}, ${bytes(total)}</h5>
    <ul class="weights">
      ${found.slice(0, MOST_NAMES).map((weight) => html`<li>
        <span>${shortened(table.name[weight].split("/").at(-1) ?? "", 30)}</span>
        <span>${table.shape[weight]} ${table.dtype[weight]}</span>${histogram(table, weight)}</li>`)}
    </ul>`;
}
