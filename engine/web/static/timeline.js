// The last minutes of a camera as a line that is dragged: what is stored is filled, the chosen time is a mark.

import { now } from "./clock.js";
import { h } from "./dom.js";
import { dateTime, timeOfDay } from "./format.js";

const SECOND_MS = 1000;
const PAGE_MS = 10 * SECOND_MS;
/** Of the height, the part that is the line. */
const BAND_SHARE = 0.6;
/** Left and right of the line, so that the mark is whole at its ends. */
const PAD = 8;
/** Steps between two labels, in seconds. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
/** A label and its distance to the next, in sizes of the text. */
const LABEL_SIZES_MIN = 7;

export class Timeline {
  #canvas = h("canvas", { "aria-hidden": "true" });
  #dragging = false;

  /** `onSeek(ms, final)` is called while dragging, and with `final` once the time is chosen. */
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.firstMs = now() - 60 * SECOND_MS;
    this.lastMs = now();
    this.chosenMs = null;
    this.buckets = [];
    this.bucketMs = SECOND_MS;
    this.slider = h("div", { role: "slider", tabindex: "0", "aria-label": "Time", "aria-orientation": "horizontal" }, this.#canvas);
    this.element = h("div", { class: "timeline" }, this.slider);
    this.slider.addEventListener("pointerdown", (event) => this.#down(event));
    this.slider.addEventListener("pointermove", (event) => { if (this.#dragging) this.#seek(this.#timeAt(event), false); });
    this.slider.addEventListener("pointerup", (event) => this.#up(event));
    this.slider.addEventListener("pointercancel", (event) => this.#up(event));
    this.slider.addEventListener("keydown", (event) => this.#key(event));
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.#canvas);
  }

  close() {
    this.sizes.disconnect();
  }

  /** Shows which parts of `firstMs`..`lastMs` are stored: buckets of [start in ms, frames]. */
  show(firstMs, lastMs, bucketMs, buckets) {
    if (this.#dragging) return;
    Object.assign(this, { firstMs, lastMs, bucketMs, buckets });
    this.draw();
  }

  /** Marks a time; null is live. */
  mark(ms) {
    if (this.#dragging || this.chosenMs === ms) return;
    this.chosenMs = ms;
    this.draw();
  }

  #down(event) {
    this.#dragging = true;
    this.slider.setPointerCapture(event.pointerId);
    this.#seek(this.#timeAt(event), false);
  }

  #up(event) {
    if (!this.#dragging) return;
    this.#dragging = false;
    this.#seek(this.#timeAt(event), true);
  }

  #key(event) {
    const here = this.chosenMs ?? this.lastMs;
    const wanted = { ArrowLeft: here - SECOND_MS, ArrowDown: here - SECOND_MS, ArrowRight: here + SECOND_MS, ArrowUp: here + SECOND_MS, PageDown: here - PAGE_MS, PageUp: here + PAGE_MS, Home: this.firstMs, End: this.lastMs, Enter: here }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#seek(wanted, event.key === "Enter");
  }

  #timeAt(event) {
    const box = this.#canvas.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left - PAD) / (box.width - 2 * PAD), 0), 1);
    return this.firstMs + share * (this.lastMs - this.firstMs);
  }

  #seek(ms, final) {
    this.chosenMs = Math.min(Math.max(ms, this.firstMs), this.lastMs);
    this.draw();
    this.onSeek(this.chosenMs, final);
  }

  draw() {
    const box = this.#canvas.getBoundingClientRect();
    if (!box.width) return;
    const scale = devicePixelRatio || 1;
    const { width, height } = box;
    const band = Math.round(height * BAND_SHARE);
    const size = parseFloat(getComputedStyle(this.#canvas).fontSize) * 0.86;
    const line = width - 2 * PAD;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const length = this.lastMs - this.firstMs;
    const place = (ms) => PAD + ((ms - this.firstMs) / length) * line;

    pen.fillStyle = colour("--line");
    pen.beginPath();
    pen.roundRect(PAD, 0, line, band, 6);
    pen.fill();
    pen.save();
    pen.clip();
    const most = Math.max(...this.buckets.map(([, frames]) => frames), 1);
    pen.fillStyle = colour("--accent");
    for (const [start, frames] of this.buckets) {
      if (!frames) continue;
      // Whole pixels: two buckets side by side show no seam.
      const left = Math.round(place(Math.max(start, this.firstMs)));
      const right = Math.round(place(Math.min(start + this.bucketMs, this.lastMs)));
      if (right < PAD) continue;
      pen.globalAlpha = 0.3 + 0.45 * (frames / most);
      pen.fillRect(left, 4, Math.max(right - left, 1), band - 8);
    }
    pen.restore();

    pen.fillStyle = colour("--quiet");
    pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "alphabetic";
    const step = (STEPS.find((seconds) => (seconds * SECOND_MS * line) / length >= LABEL_SIZES_MIN * size) ?? STEPS.at(-1)) * SECOND_MS;
    for (let ms = Math.ceil(this.firstMs / step) * step; ms <= this.lastMs; ms += step) {
      const x = place(ms);
      pen.fillRect(x, band, 1, 6);
      const text = timeOfDay(ms);
      const half = pen.measureText(text).width / 2;
      if (x > half && x < width - half) pen.fillText(text, x - half, height - size * 0.4);
    }

    const shown = this.chosenMs ?? this.lastMs;
    const x = Math.min(Math.max(place(shown), PAD), width - PAD);
    pen.fillStyle = colour("--text");
    pen.fillRect(x - 1.5, 0, 3, band);
    pen.beginPath();
    pen.arc(x, band, 6, 0, 2 * Math.PI);
    pen.fill();

    this.slider.setAttribute("aria-valuemin", Math.round(this.firstMs / SECOND_MS));
    this.slider.setAttribute("aria-valuemax", Math.round(this.lastMs / SECOND_MS));
    this.slider.setAttribute("aria-valuenow", Math.round(shown / SECOND_MS));
    this.slider.setAttribute("aria-valuetext", this.chosenMs === null ? "live" : dateTime(shown));
  }
}
