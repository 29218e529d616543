// Makes elements. All text of users goes in as text, never as markup.

/** An element: `attributes` may hold `class`, `on` (events), `data` and properties that start with "."; children are elements or text. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key.startsWith(".")) element[key.slice(1)] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets text only where it changes, so that nothing is laid out for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows a state: its class and its word. */
export function setState(element, state, base = "state") {
  const wanted = `${base} ${state}`;
  if (element.className !== wanted) element.className = wanted;
  setText(element, state);
}
