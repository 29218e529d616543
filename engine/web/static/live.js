// What the site does now: one poll of the status a second while the page is visible, shared by all views.

import { json } from "./api.js";

const POLL_MS = 1000;
/** The site is away if it does not answer for so long. */
const SECONDS_MAX = 4;
const ALERTS_EVERY = 2;

export const site = {
  /** The report of the site; null before the first, or where the web process has none. */
  report: null,
  /** The cameras by id, in the order of the site file. */
  cameras: new Map(),
  alerts: [],
  /** False while the server does not answer. */
  connected: true,
  /** performance.now() of the last answer. */
  at: 0,
};

const listeners = new Set();
let counters = true;
let alerting = true;
let turn = 0;
let timer = 0;
let asking = false;

/** Calls `listener` after each poll; returns a function that ends it. */
export function onSite(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function ask() {
  if (counters) {
    try {
      site.report = await json(["status"], {}, { seconds: SECONDS_MAX });
      return site.report.cameras;
    } catch (error) {
      // 404: the web process runs on another machine than the site. 403: the token sees one tenant only.
      if (error.status !== 404 && error.status !== 403) throw error;
      counters = false;
      site.report = null;
    }
  }
  return (await json(["cameras"], {}, { seconds: SECONDS_MAX })).cameras;
}

async function askAlerts() {
  if (site.report?.alerts) return site.report.alerts;
  if (!alerting || turn % ALERTS_EVERY) return site.alerts;
  try {
    return (await json(["alerts"], {}, { seconds: SECONDS_MAX })).alerts;
  } catch (error) {
    if (error.status === 404 || error.status === 403) alerting = false;
    return site.alerts;
  }
}

async function poll() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    const cameras = await ask();
    site.cameras = new Map(cameras.map((camera) => [camera.id, camera]));
    site.alerts = await askAlerts();
    site.connected = true;
    site.at = performance.now();
  } catch {
    site.connected = false;
    counters = true;
    alerting = true;
  }
  asking = false;
  turn += 1;
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
  for (const listener of listeners) listener(site);
}

export function startPolling() {
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  poll();
}

/** The state to show: the capture's word, or "ended" for a film that was played to its end. */
export const stateOf = (camera) => (camera.finished ? "ended" : camera.state || "waiting");

/** Drops of a camera by reason as [reason, count]: of its frames, and of its video. */
export function dropsOf(camera) {
  const video = Object.entries(camera.video?.dropped ?? {}).map(([reason, count]) => [`${reason} (video)`, count]);
  return [...Object.entries(camera.dropped ?? {}), ...video].filter(([, count]) => count);
}

export const droppedOf = (camera) => dropsOf(camera).reduce((sum, [, count]) => sum + count, 0);

/** Problems first. */
const ORDER = { offline: 0, stalled: 1, waiting: 2, connecting: 2, active: 3, ended: 4 };
export const severity = (camera) => ORDER[stateOf(camera)] ?? 2;
