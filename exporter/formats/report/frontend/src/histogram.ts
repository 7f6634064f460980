// A weight's histogram as a small picture of bars; colours come from the style sheet.

import { html, nothing, svg, type TemplateResult } from "lit";

import type { Weights } from "./data";
import { decimal } from "./format";

const WIDTH = 128;
const HEIGHT = 26;

export function histogram(weights: Weights, weight: number): TemplateResult | typeof nothing {
  const counts = weights.counts?.[weight];
  if (!counts) {
    return nothing;
  }
  const most = Math.max(...counts, 1);
  // One bin is one value: a spike, not a block.
  const [step, left] = counts.length > 1 ? [WIDTH / counts.length, 0] : [4, (WIDTH - 4) / 2];
  return html`<svg class="histogram" role="img" aria-label=${histogramText(weights, weight)} viewBox="0 0 ${WIDTH} ${HEIGHT}"
    width=${WIDTH} height=${HEIGHT} preserveAspectRatio="none">
    ${counts.map((count, place) => {
      const height = count ? Math.max(1, (HEIGHT * count) / most) : 0;
      return svg`<rect x=${left + place * step} y=${HEIGHT - height} width=${Math.max(step - 0.5, 0.5)} height=${height}></rect>`;
    })}
  </svg>`;
}

export function histogramText(weights: Weights, weight: number): string {
  const [low, high] = [weights.low?.[weight], weights.high?.[weight]];
  const [mean, std] = [weights.mean?.[weight], weights.std?.[weight]];
  return `Histogram from ${decimal(low)} to ${decimal(high)}, mean ${decimal(mean)}, deviation ${decimal(std)}`;
}
