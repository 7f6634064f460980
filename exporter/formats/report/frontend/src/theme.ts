// Light, dark, or as the system says; remembered by the browser where it lets a local file do so.

import { html, render } from "lit";

const KEY = "export-model-theme";
const THEMES = { auto: "As the system", light: "Light", dark: "Dark" };

export function themeSwitch(host: HTMLElement): void {
  const apply = (theme: string) => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // A browser may refuse that to a local file; the choice then holds until the page is left.
    }
  };
  const chosen = remembered();
  document.documentElement.dataset.theme = chosen;
  render(
    html`<label>Theme
      <select @change=${(event: Event) => apply((event.target as HTMLSelectElement).value)}>
        ${Object.entries(THEMES).map(([theme, title]) => html`<option value=${theme} ?selected=${theme === chosen}>${title}</option>`)}
      </select></label>`,
    host,
  );
}

function remembered(): string {
  try {
    const theme = localStorage.getItem(KEY) ?? "auto";
    return theme in THEMES ? theme : "auto";
  } catch {
    return "auto";
  }
}
