// What each tenant stores.

import { json } from "./api.js";
import { now } from "./clock.js";
import { h } from "./dom.js";
import { bytes, count, span } from "./format.js";
import { figure, table } from "./system.js";

const REFRESH_MS = 10000;

export function tenants(main) {
  const body = h("div", { class: "rows" }, h("p", { class: "empty" }, "Loading …"));
  main.append(h("div", { class: "sheet" }, h("h1", {}, "Tenants"), body));

  async function load() {
    if (document.hidden) return;
    try {
      const found = (await json(["tenants"], {}, { seconds: 30 })).tenants;
      if (!found.length) body.replaceChildren(h("p", { class: "empty" }, "No tenant stores frames yet."));
      else body.replaceChildren(...found.flatMap(one));
    } catch (error) {
      if (error.status === 404) clearInterval(timer);
      if (error.status !== undefined) body.replaceChildren(h("p", { class: "empty" }, error.status === 404 ? "This web process does not list tenants." : error.message));
    }
  }

  const timer = setInterval(load, REFRESH_MS);
  load();
  return () => clearInterval(timer);
}

function one(tenant) {
  const name = tenant.prefix && tenant.prefix !== "frames" ? `${tenant.vhost} (${tenant.prefix})` : tenant.vhost;
  return [
    h("h2", {}, name),
    h("div", { class: "cards" }, figure("Frames", count(tenant.frames)), figure("Memory", bytes(tenant.bytes)), figure("Cameras", count(tenant.cameras.length))),
    table(`Cameras of ${name}`, [["Camera", true], ["Frames"], ["Memory"], ["Oldest"], ["Newest"]],
      tenant.cameras.map((camera) => [camera.id, count(camera.frames), bytes(camera.bytes), ago(camera.oldest_nano), ago(camera.newest_nano)])),
  ];
}

const ago = (nano) => (nano ? `${span((now() - nano / 1e6) / 1000)} ago` : "–");
