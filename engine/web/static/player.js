// Plays fragmented MP4 through Media Source as it arrives: live, or stored video from a time on.

import { get } from "./api.js";
import { millis } from "./format.js";

/** Seconds that are read ahead of the picture, and kept behind it. */
const AHEAD_SECONDS = 20;
const BEHIND_SECONDS = 20;
/** A live picture that is further behind than this jumps to the newest. */
const LATE_SECONDS_MAX = 1.5;
const LIVE_EDGE_SECONDS = 0.25;

/** Thrown where this browser cannot play the codec. */
export class CannotPlay extends Error {}

/** True if this browser has Media Source. */
export const canStream = () => "MediaSource" in window;

export class Player {
  #stopped = new AbortController();
  #object = "";

  /** Plays `address` in `video`. `onEnd(error)` is called once, with null if the film is over. */
  constructor(video, address, { live = false, fromMs = 0, onStart = () => {}, onEnd = () => {} } = {}) {
    this.video = video;
    this.live = live;
    /** Where stored video begins: the film begins with the key frame before. */
    this.fromMs = fromMs;
    /** Milliseconds since the epoch of the film's first picture. */
    this.startMs = 0;
    this.codec = "";
    this.#run(address, onStart).then(() => onEnd(null), (error) => { if (!this.#stopped.signal.aborted) onEnd(error); });
  }

  /** The time of the shown picture, in milliseconds since the epoch. */
  get shownMs() {
    return this.startMs + this.video.currentTime * 1000;
  }

  stop() {
    this.#stopped.abort();
    if (this.#object) {
      this.video.pause();
      this.video.removeAttribute("src");
      this.video.load();
      URL.revokeObjectURL(this.#object);
      this.#object = "";
    }
  }

  async #run(address, onStart) {
    const signal = this.#stopped.signal;
    const response = await get(address, { signal, stream: true });
    this.codec = response.headers.get("x-video-codec") ?? "";
    this.startMs = millis(response.headers.get("x-video-start-nano") ?? "0");
    const type = `video/mp4; codecs="${this.codec}"`;
    if (!this.codec || !MediaSource.isTypeSupported(type)) {
      await response.body.cancel();
      throw new CannotPlay(`this browser cannot play ${this.codec || "this codec"}`);
    }
    const source = new MediaSource();
    this.#object = URL.createObjectURL(source);
    this.video.src = this.#object;
    await once(source, "sourceopen", signal);
    const buffer = source.addSourceBuffer(type);
    onStart();
    const reader = response.body.getReader();
    signal.addEventListener("abort", () => reader.cancel().catch(() => {}));
    let begun = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (signal.aborted) return;
      if (done) break;
      buffer.appendBuffer(value);
      await once(buffer, "updateend", signal);
      begun ||= this.#begin(buffer);
      await this.#tidy(buffer, signal);
      // Nothing plays, and nothing is far ahead, before the wanted time has come.
      if (!this.live && begun) await this.#wait(buffer, signal);
    }
    if (source.readyState === "open") source.endOfStream();
    if (!begun) this.video.play().catch(() => {});
    if (!this.video.ended) await once(this.video, "ended", signal);
  }

  /** Begins to play once the wanted time has arrived. */
  #begin(buffer) {
    const wanted = (this.fromMs - this.startMs) / 1000;
    if (!buffer.buffered.length) return false;
    if (wanted > 0 && this.fromMs) {
      if (buffer.buffered.end(buffer.buffered.length - 1) < wanted) return false;
      this.video.currentTime = wanted;
    }
    this.video.play().catch(() => {});
    return true;
  }

  /** Drops what was shown; keeps a live picture near the newest. */
  async #tidy(buffer, signal) {
    const { video } = this;
    if (!buffer.buffered.length) return;
    const first = buffer.buffered.start(0);
    const last = buffer.buffered.end(buffer.buffered.length - 1);
    if (video.currentTime < first) video.currentTime = first;
    if (this.live && last - video.currentTime > LATE_SECONDS_MAX) video.currentTime = Math.max(last - LIVE_EDGE_SECONDS, first);
    if (video.currentTime - first > BEHIND_SECONDS) {
      buffer.remove(first, video.currentTime - BEHIND_SECONDS / 2);
      await once(buffer, "updateend", signal);
    }
  }

  async #wait(buffer, signal) {
    const ahead = () => (buffer.buffered.length ? buffer.buffered.end(buffer.buffered.length - 1) - this.video.currentTime : 0);
    while (ahead() > AHEAD_SECONDS && !signal.aborted) await once(this.video, "timeupdate", signal);
  }
}

function once(target, event, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => {
      target.removeEventListener(event, came);
      reject(new DOMException("stopped", "AbortError"));
    };
    // Both go: one signal outlives all pieces of a film that is watched for days.
    const came = () => {
      signal.removeEventListener("abort", stopped);
      resolve();
    };
    if (signal.aborted) { stopped(); return; }
    target.addEventListener(event, came, { once: true });
    signal.addEventListener("abort", stopped, { once: true });
  });
}
