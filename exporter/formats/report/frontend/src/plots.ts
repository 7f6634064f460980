// What Plot draws, told to a screen reader as one picture.

import * as Plot from "@observablehq/plot";

export function plotted(options: Plot.PlotOptions): Element {
  const plot = Plot.plot(options);
  // Plot names the groups in it too, which only elements with a role may have.
  plot.querySelectorAll("[aria-label]").forEach((group) => group.removeAttribute("aria-label"));
  plot.setAttribute("role", "img");
  return plot;
}
