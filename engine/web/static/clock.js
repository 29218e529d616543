// The site's clock. Ages of pictures and the time line must be right on a screen whose own clock is not.

/** A difference up to this is the Date header's whole seconds and the way, and is left alone. */
const DIFFERENCE_MS_MIN = 2500;
let offsetMs = 0;

/** Takes the Date header of an answer that has just arrived. */
export function hear(response) {
  const told = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(told)) return;
  const difference = told + 500 - Date.now();
  offsetMs = Math.abs(difference) < DIFFERENCE_MS_MIN ? 0 : difference;
}

/** Milliseconds since the epoch by the site's clock. */
export const now = () => Date.now() + offsetMs;
