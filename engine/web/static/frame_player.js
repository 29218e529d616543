// Plays stored JPEGs at the pace at which they were captured; what comes too late is passed over.

import { get, json, url } from "./api.js";
import { now } from "./clock.js";
import { nano } from "./format.js";

const PAGE = 200;
/** A picture that is later than this is passed over. */
const LATE_MS_MAX = 150;
/** A gap in what is stored is waited for no longer than this. */
const GAP_MS_MAX = 1000;

export class FramePlayer {
  #stopped = new AbortController();

  /** Plays `camera` from `ms` on: `onFrame(blob, ms)` for each picture, `onEnd()` after the newest. */
  constructor(camera, ms, onFrame, onEnd) {
    this.#run(camera, ms, onFrame).then(() => { if (!this.#stopped.signal.aborted) onEnd(); }, () => { if (!this.#stopped.signal.aborted) onEnd(); });
  }

  stop() {
    this.#stopped.abort();
  }

  async #run(camera, ms, onFrame) {
    const signal = this.#stopped.signal;
    let start = ms;
    let shift = null;
    while (!signal.aborted) {
      const { frames } = await json(["cameras", camera, "frames"], { start: nano(start), limit: PAGE }, { signal });
      if (!frames.length) return;
      for (const frame of frames) {
        if (signal.aborted) return;
        const at = frame.timestamp_nano / 1e6;
        shift ??= performance.now() - at;
        let wait = at + shift - performance.now();
        if (wait > GAP_MS_MAX) {
          shift -= wait - GAP_MS_MAX;
          wait = GAP_MS_MAX;
        }
        if (wait < -LATE_MS_MAX && frame !== frames.at(-1)) continue;
        if (wait > 0) await new Promise((resolve) => { setTimeout(resolve, wait); });
        const response = await get(url(["frames", frame.key]), { signal, cache: "default" }).catch((error) => { if (error.status === 404) return null; throw error; });
        if (response) await onFrame(await response.blob(), at);
      }
      start = frames.at(-1).timestamp_nano / 1e6 + 0.01;
      if (frames.length < PAGE && now() - start < 2 * GAP_MS_MAX) return;
    }
  }
}
