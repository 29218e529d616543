// Numbers, sizes and times as people read them.

const number = new Intl.NumberFormat("en");

export const count = (value) => number.format(Math.round(value ?? 0));

export function rate(value) {
  return value === null || value === undefined ? "–" : value.toFixed(value < 10 ? 1 : 0);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Seconds as "0.4 s", "12 s", "3 min", "5 h", "2 d". */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A time of day of milliseconds since the epoch: "14:03:22", with `exact` to the millisecond. */
export function timeOfDay(ms, exact = false) {
  const text = clock.format(ms);
  return exact ? `${text}.${String(Math.floor(ms) % 1000).padStart(3, "0")}` : text;
}

export const dateTime = (ms) => date.format(ms);

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Nanoseconds of milliseconds, as text: they do not fit in a number exactly. */
export const nano = (ms) => `${BigInt(Math.round(ms * 1000)) * 1000n}`;

/** Milliseconds of nanoseconds since the epoch, given as text. */
export const millis = (text) => Number(BigInt(text) / 1000n) / 1000;
