// Loads the newest pictures of the tiles that are on screen, a few at a time.

import { get, url } from "./api.js";
import { now as siteNow } from "./clock.js";
import { millis } from "./format.js";

/** Requests at a time, of the six that a browser makes to one host: the poll of the status must not wait. */
const IN_FLIGHT_MAX = 4;
/** Pictures a second, over all tiles: 100 tiles are refreshed every four seconds, 20 each second. */
const RATE_MAX = 24;
const EACH_MS_MIN = 1000;
const RETRY_MS = 3000;

export class Pictures {
  #tiles = new Map();
  #visible = new Set();
  #flying = 0;
  #timer = 0;
  #stopped = new AbortController();
  #watcher;

  constructor() {
    this.#watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) this.#visible.add(entry.target);
        else this.#visible.delete(entry.target);
      }
      this.#go();
    }, { rootMargin: "120px" });
    this.#timer = setInterval(() => this.#go(), 100);
  }

  /** Keeps the picture of `camera` in `image`, once `exists()`; `onPicture(ms)` gets its time, or null if there is none. */
  add(element, image, camera, onPicture, exists) {
    this.#tiles.set(element, { image, camera, onPicture, exists, due: 0, busy: false, object: "" });
    this.#watcher.observe(element);
  }

  remove(element) {
    this.#watcher.unobserve(element);
    this.#visible.delete(element);
    const tile = this.#tiles.get(element);
    if (tile?.object) URL.revokeObjectURL(tile.object);
    this.#tiles.delete(element);
  }

  close() {
    clearInterval(this.#timer);
    this.#stopped.abort();
    for (const element of [...this.#tiles.keys()]) this.remove(element);
    this.#watcher.disconnect();
  }

  #go() {
    if (document.hidden) return;
    const now = performance.now();
    const due = [...this.#visible].map((element) => [element, this.#tiles.get(element)])
      .filter(([, tile]) => tile && !tile.busy && tile.due <= now && tile.exists())
      .sort(([, one], [, other]) => one.due - other.due);
    for (const [element, tile] of due) {
      if (this.#flying >= IN_FLIGHT_MAX) return;
      this.#load(element, tile, now);
    }
  }

  async #load(element, tile, now) {
    tile.busy = true;
    this.#flying += 1;
    tile.due = now + Math.max(EACH_MS_MIN, (1000 * this.#visible.size) / RATE_MAX);
    try {
      const pixels = element.clientWidth * Math.min(devicePixelRatio, 2);
      // In steps, so that viewers with windows of other sizes share the scaled pictures.
      const width = Math.min(Math.max(Math.ceil(pixels / 160) * 160, 160), 1920);
      const response = await get(url(["cameras", tile.camera, "latest.jpg"], { width }), { cache: "no-cache", signal: this.#stopped.signal });
      const stamp = response.headers.get("x-frame-timestamp-nano");
      await show(tile, await response.blob(), () => this.#tiles.get(element) === tile);
      tile.onPicture(stamp ? millis(stamp) : siteNow());
    } catch (error) {
      if (error.status) tile.onPicture(null);
      tile.due = performance.now() + RETRY_MS;
    } finally {
      tile.busy = false;
      this.#flying -= 1;
    }
  }
}

/** Puts a picture into the image of `holder` when it is decoded, so that nothing flickers; true if `wanted()` then. */
export async function show(holder, blob, wanted = () => true) {
  const object = URL.createObjectURL(blob);
  const ready = new Image();
  ready.src = object;
  try {
    await ready.decode();
  } catch {
    URL.revokeObjectURL(object);
    return false;
  }
  if (!wanted()) {
    URL.revokeObjectURL(object);
    return false;
  }
  holder.image.src = object;
  holder.image.hidden = false;
  if (holder.object) URL.revokeObjectURL(holder.object);
  holder.object = object;
  return true;
}
