// Reads the page's data and brings its parts to life, the first that are seen first.

import "accessible-autocomplete/dist/accessible-autocomplete.min.css";
import "./report.css";

import { charts } from "./charts";
import { readModel } from "./data";
import { GraphView } from "./graph";
import { layerTable } from "./layer_table";
import { Outline } from "./outline";
import { Paths } from "./paths";
import { search } from "./search";
import { State } from "./state";
import { themeSwitch } from "./theme";
import { weightTable } from "./weight_table";

const place = (id: string) => document.getElementById(id)!;

/** Lets the browser draw what there is before the next part is made. */
const pause = () => new Promise((resume) => setTimeout(resume));

async function start(): Promise<void> {
  themeSwitch(place("themes"));
  const model = await readModel();
  const outline = new Outline(model.items, model.layers);
  const state = new State(model, outline, new Paths(model.layers, model.edges));
  const app = place("graph-app");
  const finder = Object.assign(document.createElement("div"), { className: "finder screen-only" });
  finder.innerHTML = '<label for="search">Find a layer</label><div></div>';
  search(finder.querySelector("div")!, state);
  const picture = document.createElement("div");
  picture.className = "graph-view";
  app.append(finder, picture);
  new GraphView(picture, state);
  for (const [id, make] of [["layers-app", layerTable], ["charts-app", charts], ["weights-app", weightTable]] as const) {
    await pause();
    make(place(id), state);
  }
  document.documentElement.dataset.ready = "true";
}

start().catch((error: Error) => {
  const trouble = place("trouble");
  trouble.textContent = `The interactive parts could not start: ${error.message}`;
  trouble.hidden = false;
  throw error;
});
