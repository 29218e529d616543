// The wall: a tile for each camera with its newest picture.

import { now } from "./clock.js";
import { h, setState, setText } from "./dom.js";
import { fit } from "./fit.js";
import { plural, rate, span } from "./format.js";
import { onSite, severity, site, stateOf } from "./live.js";
import { Pictures } from "./pictures.js";
import { recall, remember } from "./stored.js";

/** Widths of tiles, in sizes of the text: a wall screen has larger text. */
const SIZES = { large: 34, medium: 23, small: 14 };
/** Narrower tiles show nothing; then the wall is scrolled. */
const FIT_MIN = 10.7;
/** Below this a tile has its name above its figures. */
const DENSE_MAX = 18.5;
const GAP = 12;
const settings = { text: "", order: "problems", size: recall("tiles", "fit", ["fit", ...Object.keys(SIZES)]), only: "all" };

export function wall(main) {
  const pictures = new Pictures();
  const tiles = new Map();
  let known = -1;
  const search = h("input", { type: "search", id: "search", placeholder: "Search cameras", "aria-label": "Search cameras", ".value": settings.text, on: { input: () => { settings.text = search.value; arrange(); } } });
  const order = select("Order", { problems: "Problems first", file: "As in the site file", name: "By name" }, settings.order, (value) => { settings.order = value; arrange(); });
  const only = select("Show", { all: "All", problems: "Problems" }, settings.only, (value) => { settings.only = value; arrange(); });
  const size = select("Tiles", { fit: "Fit", large: "Large", medium: "Medium", small: "Small" }, settings.size, (value) => { settings.size = value; remember("tiles", value); resize(); });
  const shown = h("span", { class: "count", role: "status" });
  const grid = h("div", { class: "wall", role: "group", "aria-label": "Cameras" });
  const empty = h("p", { class: "empty", hidden: true });
  main.append(h("h1", { class: "unseen" }, "Cameras"), h("div", { class: "filters" }, search, order, only, size, shown), grid, empty);

  function resize() {
    const text = parseFloat(getComputedStyle(grid).fontSize);
    const below = parseFloat(getComputedStyle(main).paddingBottom);
    const top = grid.getBoundingClientRect().top + scrollY;
    const found = settings.size === "fit" && fit(tiles.size, grid.clientWidth, innerHeight - top - below, GAP, FIT_MIN * text);
    const width = found ? found.width : text * (SIZES[settings.size] ?? (grid.clientWidth < 2 * SIZES.small * text ? FIT_MIN : SIZES.small));
    const columns = found ? `repeat(${found.columns}, ${width}px)` : "";
    if (grid.style.gridTemplateColumns !== columns) grid.style.gridTemplateColumns = columns;
    grid.style.setProperty("--tile", `${width}px`);
    grid.classList.toggle("dense", width < DENSE_MAX * text);
  }

  function arrange() {
    const text = settings.text.trim().toLowerCase();
    const cameras = [...site.cameras.values()];
    const wanted = cameras.filter((camera) =>
      (!text || `${camera.id} ${camera.name} ${stateOf(camera)}`.toLowerCase().includes(text)) &&
      (settings.only === "all" || severity(camera) < 3));
    if (settings.order === "problems") wanted.sort((one, other) => severity(one) - severity(other));
    if (settings.order === "name") wanted.sort((one, other) => one.id.localeCompare(other.id, "en", { numeric: true }));
    const ids = new Set(wanted.map((camera) => camera.id));
    for (const [id, tile] of tiles) {
      if (!ids.has(id)) {
        pictures.remove(tile.element);
        tile.element.remove();
        tiles.delete(id);
      }
    }
    let before = null;
    const focused = document.activeElement;
    for (const camera of wanted) {
      let tile = tiles.get(camera.id);
      if (!tile) {
        tile = new Tile(camera.id);
        tiles.set(camera.id, tile);
        pictures.add(tile.element, tile.image, camera.id, (ms) => tile.pictured(ms), () => tile.stored);
      }
      tile.update(camera);
      const place = before ? before.nextSibling : grid.firstChild;
      if (place !== tile.element) grid.insertBefore(tile.element, place);
      before = tile.element;
    }
    // An element that is moved loses the focus.
    if (focused !== document.activeElement && grid.contains(focused)) focused.focus({ preventScroll: true });
    if (known !== tiles.size) resize();
    known = tiles.size;
    setText(shown, wanted.length === cameras.length ? plural(cameras.length, "camera") : `${wanted.length} of ${plural(cameras.length, "camera")}`);
    empty.hidden = wanted.length > 0;
    setText(empty, cameras.length ? "No camera fits the search." : site.at ? "This site has no cameras." : "Loading …");
  }

  function onKey(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    if (!(event.key in steps) || event.target.closest("input, select")) return;
    const all = [...grid.children];
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? 0 : at + steps[event.key]];
    if (next) {
      next.focus();
      event.preventDefault();
    }
  }

  const columns = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  document.addEventListener("keydown", onKey);
  const ages = setInterval(() => { for (const tile of tiles.values()) tile.age(); }, 500);
  const end = onSite(arrange);
  addEventListener("resize", resize);
  arrange();
  resize();
  return () => {
    end();
    removeEventListener("resize", resize);
    clearInterval(ages);
    document.removeEventListener("keydown", onKey);
    pictures.close();
  };
}

function select(label, options, value, onChange) {
  const list = h("select", { on: { change: () => onChange(list.value) } },
    Object.entries(options).map(([key, text]) => h("option", { value: key, ".selected": key === value }, text)));
  return h("label", {}, h("span", { class: "word" }, label), list);
}

class Tile {
  constructor(id) {
    this.id = id;
    this.ms = 0;
    this.image = h("img", { alt: "", hidden: true });
    this.nothing = h("span", { class: "nothing" }, "no picture yet");
    this.mark = h("span", { class: "mark state" });
    this.title = h("span", { class: "title" });
    this.figures = h("span", { class: "figures" });
    this.element = h("a", { class: "tile", href: `#/camera/${encodeURIComponent(id)}`, data: { camera: id } },
      this.image, this.nothing, this.mark, h("span", { class: "caption" }, this.title, this.figures));
  }

  update(camera) {
    this.camera = camera;
    // Where the counts are not known, the question itself tells.
    this.stored = camera.stored_total === undefined || camera.stored_total > 0;
    const state = stateOf(camera);
    setState(this.mark, state, "mark state");
    const wanted = `tile ${state}`;
    if (this.element.className !== wanted) this.element.className = wanted;
    setText(this.title, camera.name || camera.id);
    const name = `${camera.name || camera.id}, ${state}${camera.last_error && state !== "active" ? `, ${camera.last_error}` : ""}`;
    if (this.element.getAttribute("aria-label") !== name) this.element.setAttribute("aria-label", name);
    if (this.image.hidden) setText(this.nothing, (state !== "active" && camera.last_error) || "no picture yet");
    this.age();
  }

  pictured(ms) {
    if (ms !== null) this.ms = ms;
    this.nothing.hidden = !this.image.hidden;
    this.age();
  }

  age() {
    const camera = this.camera;
    if (!camera) return;
    const parts = [];
    if (stateOf(camera) === "active") parts.push(`${rate(camera.video ? camera.packet_fps : camera.fps)} fps`);
    if (this.ms) parts.push(span(Math.max(now() - this.ms, 0) / 1000));
    setText(this.figures, parts.join(" · "));
  }
}
