// One way to make a table: AG Grid with the page's own colours, filters on every column, and a line that sums up.

import {
  CellStyleModule,
  ClientSideRowModelApiModule,
  ClientSideRowModelModule,
  type ColDef,
  createGrid,
  EventApiModule,
  type GridApi,
  ModuleRegistry,
  NumberFilterModule,
  QuickFilterModule,
  RowApiModule,
  RowSelectionModule,
  ScrollApiModule,
  TextFilterModule,
  themeQuartz,
} from "ag-grid-community";

ModuleRegistry.registerModules([
  CellStyleModule, ClientSideRowModelApiModule, ClientSideRowModelModule, EventApiModule, NumberFilterModule,
  QuickFilterModule, RowApiModule, RowSelectionModule, ScrollApiModule, TextFilterModule,
]);

/** A row is its place in the columns of the page's data. */
export interface Row {
  at: number;
}

export interface Grid {
  api: GridApi<Row>;
  /** The rows that the filters leave, in the order of the table. */
  shown(): number[];
}

interface Options {
  label: string;
  size: number;
  columns: ColDef<Row>[];
  choose: (at: number) => void;
  summary: (shown: number[]) => string;
}

const theme = themeQuartz.withParams({
  accentColor: "var(--accent)",
  backgroundColor: "var(--surface)",
  borderColor: "var(--line)",
  browserColorScheme: "inherit",
  chromeBackgroundColor: "var(--raised)",
  fontFamily: "inherit",
  fontSize: 13,
  foregroundColor: "var(--ink)",
  rowHeight: 32,
  spacing: 6,
  textColor: "var(--ink)",
});

export function text(headerName: string, values: ArrayLike<string>, more: ColDef<Row> = {}): ColDef<Row> {
  const valueGetter: ColDef<Row>["valueGetter"] = ({ data }) => values[data!.at];
  return { headerName, colId: headerName, filter: "agTextColumnFilter", minWidth: 110, flex: 1, valueGetter, ...more };
}

type Format = (value: number | null) => string;

export function numeric(headerName: string, values: ArrayLike<number | null>, format: Format, more: ColDef<Row> = {}): ColDef<Row> {
  return {
    headerName,
    colId: headerName,
    filter: "agNumberColumnFilter",
    type: "rightAligned",
    width: 128,
    valueGetter: ({ data }) => values[data!.at],
    valueFormatter: ({ value }) => format(value),
    getQuickFilterText: () => "",
    sortingOrder: ["desc", "asc", null],
    ...more,
  };
}

export function makeGrid(host: HTMLElement, options: Options): Grid {
  const tools = document.createElement("div");
  tools.className = "toolbar";
  const label = document.createElement("label");
  label.textContent = `Filter ${options.label.toLowerCase()} `;
  const quick = Object.assign(document.createElement("input"), { type: "search", placeholder: "any words" });
  label.append(quick);
  const status = document.createElement("p");
  status.className = "status";
  status.setAttribute("role", "status");
  tools.append(label, status);
  const table = document.createElement("div");
  table.className = "grid screen-only";
  host.append(tools, table);

  const shown = () => {
    const rows: number[] = [];
    api.forEachNodeAfterFilterAndSort((node) => rows.push(node.data!.at));
    return rows;
  };
  const tell = () => (status.textContent = options.summary(shown()));
  const api = createGrid<Row>(table, {
    theme,
    columnDefs: options.columns,
    defaultColDef: { floatingFilter: true, resizable: true, sortable: true, suppressHeaderMenuButton: true },
    rowData: Array.from({ length: options.size }, (_, at) => ({ at })),
    getRowId: ({ data }) => String(data.at),
    rowSelection: { mode: "singleRow", checkboxes: false, enableClickSelection: true },
    animateRows: false,
    suppressMovableColumns: true,
    enableCellTextSelection: true,
    ensureDomOrder: true,
    onRowClicked: ({ data }) => options.choose(data!.at),
    onCellKeyDown: ({ event, data }) => {
      if ((event as KeyboardEvent).key === "Enter") {
        options.choose(data!.at);
      }
    },
    onFilterChanged: tell,
  });
  table.querySelector("[role=grid], [role=treegrid]")?.setAttribute("aria-label", options.label);
  quick.addEventListener("input", () => api.setGridOption("quickFilterText", quick.value));
  tell();
  return { api, shown };
}

const MOST_PRINTED = 2000;

/** Paper cannot scroll: before printing, the shown rows become a plain table at the end, which goes afterwards. */
export function printable(title: string, grid: Grid, heads: string[], cells: (at: number) => string[]): void {
  const place = document.createElement("div");
  document.getElementById("appendix")!.append(place);
  addEventListener("beforeprint", () => {
    const rows = grid.shown();
    const table = document.createElement("table");
    table.className = "plain";
    table.createTHead().append(line(heads, "th"));
    table.createTBody().append(...rows.slice(0, MOST_PRINTED).map((at) => line(cells(at), "td")));
    const heading = Object.assign(document.createElement("h2"), { textContent: title });
    place.replaceChildren(heading, table);
    if (rows.length > MOST_PRINTED) {
      place.append(`The first ${MOST_PRINTED} of ${rows.length} rows; a filter in the table chooses others.`);
    }
  });
  addEventListener("afterprint", () => place.replaceChildren());
}

function line(cells: string[], kind: "th" | "td"): HTMLTableRowElement {
  const row = document.createElement("tr");
  for (const text of cells) {
    const cell = document.createElement(kind);
    cell.textContent = text;
    row.append(cell);
  }
  return row;
}
