// What this browser remembers of a person's choices. A browser that stores nothing has them until the page is left.

const kept = new Map();

export function recall(name, otherwise, allowed) {
  let value = kept.get(name);
  try { value ??= localStorage.getItem(name); } catch { /* Storage is off. */ }
  return value && (!allowed || allowed.includes(value)) ? value : otherwise;
}

export function remember(name, value) {
  kept.set(name, value);
  try { localStorage.setItem(name, value); } catch { /* Storage is off or full. */ }
}
