// Finds layers by a part of their name or class, and shows the chosen one in the graph.

import accessibleAutocomplete from "accessible-autocomplete";

import type { Layers } from "./data";
import type { State } from "./state";

const MOST_RESULTS = 50;

export function search(host: HTMLElement, state: State): void {
  const { layers } = state.model;
  accessibleAutocomplete({
    element: host,
    id: "search",
    minLength: 1,
    confirmOnBlur: false,
    displayMenu: "overlay",
    placeholder: "Name or class of a layer",
    showNoOptionsFound: true,
    source: (query: string, show: (results: number[]) => void) => show(matches(layers, query)),
    templates: {
      // The library takes suggestions as HTML, and names may be anything.
      suggestion: (layer: number) => escaped(`${layers.key[layer]}  ·  ${layers.class[layer]}`),
      inputValue: (layer: number | undefined) => (layer === undefined ? "" : layers.key[layer]),
    },
    onConfirm: (layer: number | undefined) => {
      if (layer !== undefined) {
        state.chooseLayer(layer);
      }
    },
  });
}

/** Names that begin with the words come first, then those that contain them, then classes. */
function matches(layers: Layers, query: string): number[] {
  const words = query.trim().toLowerCase();
  const found: number[][] = [[], [], []];
  for (let layer = 0; layer < layers.key.length && found[0].length < MOST_RESULTS; layer++) {
    const place = layers.key[layer].toLowerCase().indexOf(words);
    if (place >= 0) {
      found[place === 0 || layers.name[layer].toLowerCase().startsWith(words) ? 0 : 1].push(layer);
    } else if (layers.class[layer].toLowerCase().includes(words)) {
      found[2].push(layer);
    }
  }
  return found.flat().slice(0, MOST_RESULTS);
}

const SIGNS: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => SIGNS[sign]);
}
