// The picture of a camera: live, at a chosen time, or playing from there.

import { get, json, url } from "./api.js";
import { now } from "./clock.js";
import { FramePlayer } from "./frame_player.js";
import { h, setText } from "./dom.js";
import { millis, nano, timeOfDay } from "./format.js";
import { stateOf } from "./live.js";
import { CannotPlay, Player, canStream } from "./player.js";
import { show } from "./pictures.js";

const WIDTH = 1280;
const LIVE_FPS = 15;
const RETRY_MS = 2000;
/** How much recorded video is asked for at a time. */
const FILM_SECONDS = 300;
/** A recording that ends this close to now goes on live. */
const NEWEST_MS = 5000;

export class Screen {
  #wantedMs = null;
  /** Counts what was begun: a picture that was decoded for what was before is not shown any more. */
  #turn = 0;
  #loading = false;
  #retry = 0;
  #player = null;
  #camera = null;
  #closed = false;
  /** False once this browser has refused the camera's codec. */
  #playable = canStream();
  /** False once the server has said that it has no live video of this camera. */
  #streamed = true;
  #asleep = false;
  /** True once the message says why there is no picture. */
  #refused = false;

  constructor(id) {
    this.id = id;
    /** "live" or "stored". */
    this.mode = "live";
    this.paused = false;
    /** Time of the shown picture in milliseconds since the epoch; null if it is not known. */
    this.pictureMs = null;
    this.note = "";
    this.image = h("img", { alt: "", hidden: true });
    this.video = h("video", { muted: true, ".muted": true, playsinline: true, hidden: true, "aria-label": `Video of ${id}` });
    this.object = "";
    this.message = h("p", { class: "message" }, "Loading …");
    this.kind = h("span", { class: "kind live" }, "live");
    this.shown = h("span", { class: "shown", hidden: true });
    this.element = h("div", { class: "screen" }, this.video, this.image, this.message, this.kind, this.shown);
    this.image.addEventListener("load", () => { this.message.hidden = true; });
    this.image.addEventListener("error", () => { if (this.mode === "live" && this.image.getAttribute("src")) this.#again(); });
    this.clock = setInterval(() => this.#tell(), 100);
  }

  /** Takes what is known of the camera; the first time, its live picture begins. */
  know(camera) {
    const first = this.#camera === null;
    this.#camera = camera;
    this.image.alt = `Picture of ${camera.name || camera.id}`;
    if (first) this.live();
  }

  /** The time that the time line marks: the one that is wanted, until its picture is there. */
  get markMs() {
    return this.#wantedMs ?? this.atMs;
  }

  get atMs() {
    if (this.#player instanceof Player && !this.video.hidden && this.#player.startMs) return this.#player.shownMs;
    return this.pictureMs;
  }

  /** The live picture: video where the camera's is stored and this browser plays it, else the JPEGs as they come. */
  live() {
    this.#stop();
    this.#asleep = false;
    this.#refused = false;
    this.mode = "live";
    this.paused = false;
    if (this.#camera?.video && this.#playable && this.#streamed) {
      this.#watch(url(["cameras", this.id, "live.mp4"]), true, () => { this.#streamed = false; this.#jpegs(); });
    } else {
      this.#jpegs();
    }
  }

  /** Begins the live picture anew after the connection was lost. */
  again() {
    this.#streamed = true;
    if (this.mode === "live" && this.#camera && !this.#asleep) this.live();
  }

  /** Ends the live picture while nobody sees the page. */
  sleep(hidden) {
    if (this.mode !== "live" || !this.#camera) return;
    if (hidden) this.#stop();
    else this.live();
    this.#asleep = hidden;
  }

  /** Shows the picture at a time; with `final` the recording plays from there, or stays if it was paused. */
  seek(ms, final) {
    this.#stop();
    this.mode = "stored";
    if (final && !this.paused) this.#play(ms);
    else this.#want(ms);
  }

  toggle() {
    if (this.mode === "live") return;
    this.paused = !this.paused;
    if (!this.paused && !(this.#player instanceof Player)) {
      this.#play(this.atMs ?? now());
    } else if (this.#player instanceof Player) {
      if (this.paused) this.video.pause();
      else this.video.play().catch(() => {});
    } else {
      this.#player?.stop();
      this.#player = null;
    }
  }

  /** One frame back or on; stops there. */
  async step(by) {
    const at = this.atMs ?? now();
    this.paused = true;
    if (this.mode === "stored" && this.#player instanceof Player && !this.video.hidden) {
      this.video.pause();
      this.video.currentTime += by / (this.#camera?.packet_fps || 15);
      return;
    }
    this.#stop();
    this.mode = "stored";
    const query = by < 0 ? { end: nano(at - 0.01), reverse: "true", limit: 1 } : { start: nano(at + 0.01), limit: 1 };
    try {
      const { frames } = await json(["cameras", this.id, "frames"], query);
      if (frames.length) await this.#load(url(["frames", frames[0].key]));
    } catch (error) {
      this.note = error.message;
    }
  }

  close() {
    this.#closed = true;
    clearInterval(this.clock);
    this.#stop();
    if (this.object) URL.revokeObjectURL(this.object);
  }

  #stop() {
    clearTimeout(this.#retry);
    this.#turn += 1;
    this.#wantedMs = null;
    this.pictureMs = this.atMs;
    this.#player?.stop();
    this.#player = null;
    this.note = "";
    // Ends a stream of JPEGs; the picture of a chosen time is an object of ours.
    if (!this.image.src.startsWith("blob:")) this.image.removeAttribute("src");
  }

  #see(element) {
    this.video.hidden = element !== this.video;
    this.image.hidden = element !== this.image;
    this.message.hidden = true;
  }

  #jpegs() {
    if (this.#camera?.decode === "none") {
      this.#refused = true;
      this.message.hidden = false;
      setText(this.message, this.#playable
        ? "This camera's pictures are stored as video only, and none can be shown now."
        : "This camera's pictures are stored as video only, and this browser cannot play it.");
      if (this.#playable) {
        this.#streamed = true;
        this.#again();
      }
      return;
    }
    this.video.hidden = true;
    this.image.hidden = false;
    this.pictureMs = null;
    this.image.src = url(["cameras", this.id, "stream.mjpeg"], { fps: LIVE_FPS, width: WIDTH });
  }

  #again() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => { if (!this.#closed && this.mode === "live") this.live(); }, RETRY_MS);
  }

  #watch(address, live, instead, fromMs = 0) {
    const player = new Player(this.video, address, {
      live,
      fromMs,
      onStart: () => this.#see(this.video),
      onEnd: (error) => {
        if (this.#player !== player) return;
        const { shownMs } = player;
        const begun = player.startMs > 0 && shownMs > Math.max(fromMs, player.startMs);
        this.#player = null;
        player.stop();
        if (error instanceof CannotPlay) {
          this.#playable = false;
          instead();
          this.note = `${error.message}; these are the JPEGs of ${this.#camera.decode === "all" ? "all pictures" : "its key frames"}`;
        } else if (error?.status === 404 || error?.status === 406 || error?.status === 409 || error?.status === 422) {
          instead();
        } else if (live) {
          this.#again();
        } else if (error && !begun) {
          this.note = error.message;
        } else if (shownMs < now() - NEWEST_MS) {
          // The film was one of several, or its connection ended while it was paused.
          this.#play(shownMs);
        } else {
          this.live();
        }
      },
    });
    this.#player = player;
  }

  #play(ms) {
    this.mode = "stored";
    if (this.#camera?.video && this.#playable) {
      this.#watch(url(["cameras", this.id, "video.mp4"], { start: nano(ms), duration: `${FILM_SECONDS}s` }), false, () => this.#frames(ms), ms);
    } else {
      this.#frames(ms);
    }
  }

  #frames(ms) {
    this.#player = new FramePlayer(this.id, ms, (blob, at) => this.#put(blob, at), () => this.live());
  }

  async #put(blob, at) {
    const turn = this.#turn;
    if (!await show(this, blob, () => turn === this.#turn && !this.#closed)) return;
    this.pictureMs = at;
    this.#see(this.image);
  }

  /** Loads the picture of the newest wanted time; those that were wanted meanwhile are passed over. */
  async #want(ms) {
    this.#wantedMs = ms;
    if (this.#loading) return;
    this.#loading = true;
    try {
      while (this.#wantedMs !== null) {
        const wanted = this.#wantedMs;
        await this.#load(url(["cameras", this.id, "at.jpg"], { time: nano(wanted), width: WIDTH })).catch((error) => { this.note = error.message; });
        if (this.#wantedMs === wanted) this.#wantedMs = null;
      }
    } finally {
      this.#loading = false;
    }
  }

  async #load(address) {
    const response = await get(address);
    const stamp = response.headers.get("x-frame-timestamp-nano");
    const blob = await response.blob();
    if (this.mode !== "stored" || this.#player) return;
    this.note = "";
    await this.#put(blob, stamp ? millis(stamp) : null);
  }

  #tell() {
    const at = this.atMs;
    setText(this.kind, this.mode === "live" ? "live" : "recorded");
    this.kind.classList.toggle("live", this.mode === "live");
    this.shown.hidden = at === null;
    if (at !== null) setText(this.shown, timeOfDay(at, true));
    // A stream has no picture before the camera sends one.
    const empty = this.mode === "live" && (this.image.hidden || !this.image.naturalWidth) && this.video.hidden;
    if (empty && !this.#refused) {
      const state = this.#camera ? stateOf(this.#camera) : "";
      this.message.hidden = false;
      setText(this.message, !state || state === "active" ? "Loading …" : `The camera is ${state}. What it stored before is on the time line.`);
    }
  }
}
