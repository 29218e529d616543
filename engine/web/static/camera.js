// One camera: its live picture or a stored one, the time line, curves and facts.

import { json, url } from "./api.js";
import { Curves } from "./charts.js";
import { now } from "./clock.js";
import { h, setState, setText } from "./dom.js";
import { bytes, count, dateTime, nano, plural, rate, span } from "./format.js";
import { dropsOf, onSite, site, stateOf } from "./live.js";
import { Screen } from "./screen.js";
import { Timeline } from "./timeline.js";

const SECOND_MS = 1000;
/** The longest part of the past that the time line shows, and the shortest. */
const PAST_MS_MAX = 15 * 60 * SECOND_MS;
const PAST_MS_MIN = 60 * SECOND_MS;
const BUCKETS = 240;
const STORED_EVERY_MS = 5000;
/** Seconds of a clip that is downloaded. */
const CLIP_SECONDS = 60;

export function camera(main, id) {
  const screen = new Screen(id);
  const timeline = new Timeline((ms, final) => screen.seek(ms, final));
  const state = h("span", { class: "state" });
  const title = h("h1", {}, id);
  const live = h("button", { class: "button", type: "button", on: { click: () => screen.live() } }, "Live");
  const play = h("button", { class: "button", type: "button", on: { click: () => screen.toggle() } }, "Pause");
  const back = h("button", { class: "button", type: "button", "aria-label": "One frame back", on: { click: () => screen.step(-1) } }, "‹ frame");
  const on = h("button", { class: "button", type: "button", "aria-label": "One frame on", on: { click: () => screen.step(1) } }, "frame ›");
  const clip = h("a", { class: "button", download: "" }, "Download a minute");
  const note = h("span", { class: "note", role: "status" });
  const facts = h("section", { class: "card facts", "aria-label": "Facts" });
  const missing = h("p", { class: "empty", hidden: true });
  const page = h("div", { class: "camera" },
    h("div", { class: "heading" }, h("a", { class: "back", href: "#/" }, "‹ All cameras"), title, state),
    h("section", { class: "card", "aria-label": "Picture" }, screen.element, h("div", { class: "controls" }, live, play, back, on, clip, note), timeline.element),
    facts);
  let curves = null;
  let storedAt = 0;
  let pastMs = PAST_MS_MIN;
  let closed = false;
  let connected = true;
  main.append(page, missing);

  async function askStored(video) {
    const at = now();
    if (at - storedAt < STORED_EVERY_MS) return;
    storedAt = at;
    const bucketMs = Math.max(Math.ceil(pastMs / BUCKETS / SECOND_MS), 1) * SECOND_MS;
    try {
      const found = await json(["cameras", id, "rate"], { start: nano(at - PAST_MS_MAX), bucket: `${bucketMs}ms`, video: video ? "true" : undefined });
      if (closed) return;
      const buckets = found.buckets.map((bucket) => [bucket.start_nano / 1e6, bucket.frames]);
      const oldest = buckets.find(([, frames]) => frames)?.[0] ?? at;
      pastMs = Math.min(Math.max(at - oldest, PAST_MS_MIN), PAST_MS_MAX);
      timeline.show(at - pastMs, at, bucketMs, buckets);
    } catch (error) {
      if (error.status !== undefined) timeline.show(at - pastMs, at, SECOND_MS, []);
    }
  }

  function update() {
    // A browser does not tell that a stream of pictures was cut.
    if (site.connected && !connected) screen.again();
    connected = site.connected;
    const found = site.cameras.get(id);
    missing.hidden = Boolean(found) || !site.at;
    page.hidden = !found;
    if (!found) {
      setText(missing, `There is no camera ${id} at this site.`);
      return;
    }
    const video = Boolean(found.video);
    if (!curves) {
      curves = new Curves(id, video);
      page.append(curves.element);
    }
    setText(title, found.name && found.name !== id ? `${found.name} (${id})` : id);
    setState(state, stateOf(found));
    screen.know(found);
    askStored(video);
    showFacts(facts, found);
  }

  function show() {
    const ms = screen.atMs;
    timeline.mark(screen.mode === "live" ? null : screen.markMs);
    live.setAttribute("aria-pressed", `${screen.mode === "live"}`);
    setText(play, screen.mode === "stored" && screen.paused ? "Play" : "Pause");
    play.disabled = screen.mode === "live";
    setText(note, screen.note);
    const start = (ms ?? now()) - (screen.mode === "live" ? CLIP_SECONDS * SECOND_MS : 0);
    clip.href = url(["cameras", id, "video.mp4"], { start: nano(start), duration: `${CLIP_SECONDS}s`, download: "1" });
  }

  function onKey(event) {
    if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { ",": () => screen.step(-1), ".": () => screen.step(1), l: () => screen.live(), " ": () => screen.toggle() }[event.key];
    if (action && !(event.key === " " && event.target.closest("button, a"))) {
      event.preventDefault();
      action();
    }
  }

  const onVisible = () => screen.sleep(document.hidden);
  document.addEventListener("visibilitychange", onVisible);
  document.addEventListener("keydown", onKey);
  const shows = setInterval(show, 200);
  const end = onSite(update);
  update();
  show();
  return () => {
    closed = true;
    end();
    clearInterval(shows);
    document.removeEventListener("visibilitychange", onVisible);
    document.removeEventListener("keydown", onKey);
    screen.close();
    timeline.close();
    curves?.close();
  };
}

function showFacts(card, camera) {
  const drops = dropsOf(camera);
  const rows = [
    ["Picture", camera.width ? `${camera.width} × ${camera.height}` : "–"],
    ["Codec", [camera.codec, camera.mode, camera.decode && `JPEGs of ${camera.decode}`].filter(Boolean).join(", ") || "–"],
    ["Frames a second", rate(camera.fps)],
    ...(camera.video ? [["Packets a second", rate(camera.packet_fps)], ["Key frame every", span(camera.key_interval_seconds)]] : []),
    ["Stored", camera.stored === undefined ? "–" : `${plural(camera.stored, "frame")}, ${bytes(camera.stored_bytes)}`],
    ...(camera.video ? [["Video stored", `${plural(camera.video.stored, "packet")}, ${bytes(camera.video.stored_bytes)}`]] : []),
    ["Dropped", drops.length ? drops.map(([reason, frames]) => `${count(frames)} ${reason}`).join(", ") : "0"],
    ["Ring", camera.ring ? `${Math.round(camera.ring.fill * 100)} % of ${bytes(camera.ring.capacity_bytes)}` : "–"],
    ["Camera to Redis", camera.latency_ms ? `${rate(camera.latency_ms.p50)} ms, p99 ${rate(camera.latency_ms.p99)} ms` : "–"],
    ["Connections", count(camera.connects)],
    ...(camera.note ? [["Waits for", camera.note]] : []),
    ...(camera.clock_offset_seconds === null || camera.clock_offset_seconds === undefined ? [] : [["Camera's clock", `${camera.clock_offset_seconds >= 0 ? "+" : "−"}${Math.abs(camera.clock_offset_seconds).toFixed(2)} s`]]),
    ["Since", camera.since ? dateTime(camera.since / 1e6) : "–"],
  ];
  const failing = camera.last_error && stateOf(camera) !== "active";
  card.replaceChildren(h("h2", {}, "Camera"), h("dl", {}, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    ...(failing ? [h("p", { class: "error" }, camera.last_error, ...(camera.advice && !camera.last_error.endsWith(camera.advice) ? [h("span", { class: "advice" }, camera.advice)] : []))] : []));
}
