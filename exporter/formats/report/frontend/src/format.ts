// Numbers as people read them. Unknown is a dash, never 0.

const UNITS: [number, string][] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** `640`, `16.4 k`, `2.36 M`. */
export function amount(value: number | null | undefined): string {
  if (value == null) {
    return "–";
  }
  const unit = UNITS.find(([limit]) => Math.abs(value) >= limit * 0.9995);
  return unit ? `${digits(value / unit[0])} ${unit[1]}` : String(value);
}

/** Decimal units: `178 MB`. */
export function bytes(value: number | null | undefined): string {
  if (value == null) {
    return "–";
  }
  return value < 999.5 ? `${value} B` : `${amount(value)}B`;
}

function digits(value: number): string {
  return Number(value.toPrecision(3)).toString();
}

export function whole(value: number | null | undefined): string {
  return value == null ? "–" : value.toLocaleString("en-US");
}

export function decimal(value: number | null | undefined): string {
  return value == null ? "–" : Number(value.toPrecision(4)).toString().replace("-", "−");
}

/** `12 %`, `<0.1 %`; empty where the whole is unknown or nothing. */
export function share(part: number | null, whole: number): string {
  if (part == null || !whole) {
    return "";
  }
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.1 ? "<0.1 %" : `${Number(percent.toPrecision(2))} %`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** At most so many characters; the ends of a name tell the most. */
export function shortened(text: string, length: number): string {
  const half = Math.floor((length - 1) / 2);
  return text.length <= length ? text : `${text.slice(0, half)}…${text.slice(-half)}`;
}

export function sum(values: Iterable<number | null>): number | null {
  let total: number | null = null;
  for (const value of values) {
    total = value == null ? total : (total ?? 0) + value;
  }
  return total;
}
