// Curves of the last minutes, drawn by uPlot.

import uPlot from "./vendor/uPlot.esm.js";
import { json } from "./api.js";
import { h } from "./dom.js";
import { count } from "./format.js";

const REFRESH_MS = 4000;
const HEIGHT = 150;
const MINUTES = 15;
const TICK_SECONDS = [60, 120, 300, 600];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A curve: its title, the series of the history that it shows, and how its newest values are told. */
class Curve {
  constructor(title, series, tell) {
    this.series = series;
    this.tell = tell;
    this.now = h("span", { class: "now" });
    this.plot = h("div", { class: "plot", role: "img", "aria-label": title });
    this.title = title;
    this.element = h("section", { class: "card curve" }, h("h2", {}, title, this.now), this.plot);
    this.sizes = new ResizeObserver(() => this.chart?.setSize({ width: this.plot.clientWidth, height: HEIGHT }));
    this.sizes.observe(this.plot);
  }

  show(history) {
    const data = [history.times, ...this.series.map(({ key }) => history[key] ?? [])];
    const told = this.tell(history);
    // A line is told apart by its dashes and its name, not by its colour alone.
    this.now.replaceChildren(...told.map(([name, value], at) => h("span", {}, keyOf(this.series[at]), `${name} `, h("b", {}, value))));
    this.plot.setAttribute("aria-label", `${this.title}: now ${told.map((pair) => pair.join(" ")).join(", ")}`);
    if (this.chart) this.chart.setData(data);
    else this.make(data);
  }

  make(data) {
    this.chart?.destroy();
    const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: `11px ${getComputedStyle(document.body).fontFamily}` };
    this.chart = new uPlot({
      width: this.plot.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.15, 1)] } },
      axes: [{ ...axis, incrs: TICK_SECONDS, size: 26, space: 60, values: (_, times) => times.map((time) => new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) }, { ...axis, size: 44, space: 32 }],
      series: [{}, ...this.series.map(({ colour, fill, dash }) => ({
        stroke: css(colour), width: 1.6, dash: dash ? [6, 4] : undefined, points: { show: false },
        fill: fill ? `color-mix(in srgb, ${css(colour)} 16%, transparent)` : undefined,
      }))],
    }, data, this.plot);
  }

  close() {
    this.sizes.disconnect();
    this.chart?.destroy();
  }
}

/** The key of a line: a short piece of it. */
function keyOf({ colour, dash }) {
  const key = h("i", { class: dash ? "key dash" : "key", "aria-hidden": "true" });
  key.style.borderTopColor = `var(${colour})`;
  return key;
}

const last = (values) => (values?.length ? values.at(-1) : null);
const sum = (values) => (values ?? []).reduce((total, value) => total + (value ?? 0), 0);
const ms = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);

/** The curves of a camera, or of the site if `camera` is undefined. They stay empty where no history is kept. */
export class Curves {
  constructor(camera, video = false) {
    this.camera = camera;
    const frames = { key: "fps", colour: "--accent", fill: true };
    const packets = { key: "packet_fps", colour: "--good", dash: true };
    this.curves = [
      new Curve(video ? "Frames and packets a second" : "Frames a second", video ? [frames, packets] : [frames],
        (history) => [["frames", last(history.fps)?.toFixed(1) ?? "–"], ...(video ? [["packets", last(history.packet_fps)?.toFixed(1) ?? "–"]] : [])]),
      new Curve("Camera to Redis", [{ key: "p50_ms", colour: "--accent", fill: true }, { key: "p99_ms", colour: "--warn", dash: true }],
        (history) => [["p50", ms(last(history.p50_ms))], ["p99", ms(last(history.p99_ms))]]),
      new Curve("Dropped frames", [{ key: "dropped", colour: "--bad", fill: true }],
        (history) => [["in these minutes", count(sum(history.dropped))]]),
    ];
    this.element = h("div", { class: "curves" }, this.curves.map((curve) => curve.element));
    this.timer = setInterval(() => { if (!document.hidden) this.load(); }, REFRESH_MS);
    this.load();
    this.themed = () => { for (const curve of this.curves) if (curve.chart) curve.make(curve.chart.data); };
    document.addEventListener("themed", this.themed);
  }

  async load() {
    try {
      const history = await json(["history"], { camera: this.camera, minutes: MINUTES });
      if (this.closed) return;
      this.element.hidden = false;
      for (const curve of this.curves) curve.show(history);
    } catch (error) {
      // Where the site runs elsewhere there is no history; asking again would not help.
      if (error.status === 404 || error.status === 403) clearInterval(this.timer);
      if (error.status) this.element.hidden = !this.curves[0].chart;
    }
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    document.removeEventListener("themed", this.themed);
    for (const curve of this.curves) curve.close();
  }
}
