// The page: which view is shown, the header, the theme, the keyboard.

import { alerts } from "./alerts.js";
import { camera } from "./camera.js";
import { h, setText } from "./dom.js";
import { count, plural, rate } from "./format.js";
import { droppedOf, onSite, severity, site, startPolling } from "./live.js";
import { recall, remember } from "./stored.js";
import { system } from "./system.js";
import { tenants } from "./tenants.js";
import { wall } from "./wall.js";

const VIEWS = { "": wall, camera, system, tenants, alerts };
const TITLES = { "": "Cameras", system: "System", tenants: "Tenants", alerts: "Alerts" };
const byId = (id) => document.getElementById(id);
const main = byId("main");
let leave = () => {};

function route() {
  const [view = "", ...rest] = location.hash.replace(/^#\//, "").split("/");
  leave();
  main.replaceChildren();
  let name = rest.join("/");
  try { name = decodeURIComponent(name); } catch { /* It is no name of a camera, and the view says so. */ }
  const make = Object.hasOwn(VIEWS, view) ? VIEWS[view] : wall;
  document.body.dataset.view = view || "wall";
  leave = make(main, name);
  document.title = `${view === "camera" ? name : (TITLES[view] ?? "Cameras")} · ${site.report?.site ?? "Edge Video"}`;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === (view === "" || view === "camera" ? "wall" : view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
}

// The theme: the system's, until a person chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  const chosen = recall("theme", dark.matches ? "dark" : "light", ["dark", "light"]);
  document.documentElement.dataset.theme = chosen;
  setText(byId("theme"), chosen === "dark" ? "☀" : "☾");
  byId("theme").setAttribute("aria-label", `Change to the ${chosen === "dark" ? "light" : "dark"} theme`);
  document.dispatchEvent(new Event("themed"));
}
dark.addEventListener("change", theme);
byId("theme").addEventListener("click", () => {
  remember("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  theme();
});
theme();

const keys = byId("keys");
byId("help").addEventListener("click", () => keys.showModal());
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  if (event.key === "?") keys.showModal();
  if (event.key === "f") fullScreen();
  if (event.key === "Escape" && location.hash.length > 2) location.hash = "#/";
  if (event.key === "/") {
    event.preventDefault();
    // The hash counts, not what is shown: the page may be about to show another view.
    if (location.hash.length <= 2 && byId("search")) {
      byId("search").focus();
    } else {
      addEventListener("hashchange", searchWhenShown);
      location.hash = "#/";
    }
  }
});

/** Focus the search when the wall is shown. Changes to other views may still be under way before that. */
function searchWhenShown(event) {
  if (new URL(event.newURL).hash.length > 2) return;
  removeEventListener("hashchange", searchWhenShown);
  byId("search")?.focus();
}

/** A wall without the page's frame, or back. */
function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
}
document.addEventListener("fullscreenchange", () => {
  document.body.classList.toggle("bare", Boolean(document.fullscreenElement));
  dispatchEvent(new Event("resize"));
});

const states = new Map();
let standing = new Set();
function header() {
  const cameras = [...site.cameras.values()];
  const bad = cameras.filter((one) => severity(one) < 3).length;
  if (site.report) setText(byId("site"), site.report.site);
  const parts = [];
  if (cameras.length) {
    const fps = cameras.reduce((sum, one) => sum + (one.fps ?? 0), 0);
    const dropped = cameras.reduce((sum, one) => sum + droppedOf(one), 0);
    parts.push([`${cameras.length - bad} of ${cameras.length}`, "cameras"], [rate(fps), "fps"], [count(dropped), "dropped"]);
  }
  byId("totals").replaceChildren(...parts.map(([value, what]) => h("span", {}, h("b", {}, value), ` ${what}`)));
  const badge = byId("badge");
  badge.hidden = !site.alerts.length;
  badge.className = `badge ${site.alerts.some((alert) => alert.severity === "critical") ? "critical" : "warning"}`;
  setText(badge, `${site.alerts.length}`);
  badge.setAttribute("aria-label", plural(site.alerts.length, "alert"));
  const banner = byId("banner");
  banner.hidden = site.connected;
  if (!site.connected) setText(banner, "The connection to the site is lost. Trying again …");
  announce(cameras);
}

/** Tells a screen reader which cameras changed, and which alerts are new. */
function announce(cameras) {
  const told = [];
  for (const one of cameras) {
    const before = states.get(one.id);
    if (before !== undefined && before !== one.state) told.push(`${one.name || one.id} is ${one.state}`);
    states.set(one.id, one.state);
  }
  const texts = site.alerts.map((alert) => alert.text);
  told.push(...texts.filter((text) => !standing.has(text)).map((text) => `Alert: ${text}`));
  standing = new Set(texts);
  if (told.length) setText(byId("announcer"), told.slice(0, 3).join(", "));
}

onSite(header);
addEventListener("hashchange", route);
startPolling();
route();
