// The site's processes, rings, servers and curves.

import { json } from "./api.js";
import { Curves } from "./charts.js";
import { h, setText } from "./dom.js";
import { bytes, count, plural, rate, span } from "./format.js";
import { droppedOf, onSite, severity, site } from "./live.js";

const SERVERS_EVERY_MS = 3000;

/** A card with one figure. */
export function figure(label, value, more = "", kind = "") {
  return h("div", { class: "card figure" }, h("div", { class: "label" }, label), h("div", { class: `value ${kind}` }, value), more ? h("div", { class: "more" }, more) : null);
}

/** A table: columns are [title, text column]. */
export function table(caption, columns, rows) {
  return h("div", { class: "card wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map(([title, text]) => h("th", { scope: "col", class: text ? "text" : null }, title)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) => h(at ? "td" : "th", { scope: at ? null : "row", class: columns[at][1] ? "text" : null }, cell)))))));
}

export function meter(share) {
  const bar = h("i", { class: share > 0.9 ? "bad" : share > 0.7 ? "warn" : "" });
  bar.style.width = `${Math.min(share * 100, 100)}%`;
  return h("span", {}, `${Math.round(share * 100)} %`, h("span", { class: "meter", "aria-hidden": "true" }, bar));
}

export function system(main) {
  const cards = h("div", { class: "cards" });
  const tables = h("div", { class: "rows" });
  const curves = new Curves(undefined);
  const troubles = h("p", {});
  let servers = {};
  let askedAt = -Infinity;
  main.append(h("div", { class: "sheet" }, h("div", {}, h("h1", {}, "System"), troubles), cards, curves.element, tables));

  async function askServers() {
    if (performance.now() - askedAt < SERVERS_EVERY_MS) return;
    askedAt = performance.now();
    try {
      servers = await json(["servers"]);
    } catch (error) {
      // Nothing more is known where there is no such list.
      if (error.status === 404 || error.status === 403) askedAt = Infinity;
    }
  }

  function update() {
    askServers();
    const report = site.report;
    if (!report) {
      cards.replaceChildren(h("p", { class: "empty" }, site.at ? "This page shows what runs on the site's own machine. This web process runs elsewhere, or your token sees one tenant only." : "Loading …"));
      tables.replaceChildren();
      return;
    }
    const inactive = report.cameras.filter((camera) => severity(camera) < 3).length;
    const wrong = report.troubles.length || inactive;
    troubles.className = `state ${report.troubles.length ? "critical" : inactive ? "warning" : "active"}`;
    const unsaid = inactive && !report.troubles.length ? [`${plural(inactive, "camera")} ${inactive === 1 ? "is" : "are"} not active`] : [];
    setText(troubles, wrong ? [...report.troubles, ...unsaid].join("; ") : "all is well");
    cards.replaceChildren(...figures(report, servers));
    const focused = document.activeElement?.getAttribute("aria-label");
    const nodes = servers.redis?.nodes ?? [];
    tables.replaceChildren(processes(report), ...(nodes.length ? [redisNodes(nodes)] : []), rings(report));
    if (focused) tables.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  const end = onSite(update);
  update();
  return () => { end(); curves.close(); };
}

function figures(report, servers) {
  const active = report.cameras.filter((camera) => camera.state === "active").length;
  const fps = report.cameras.reduce((sum, camera) => sum + camera.fps, 0);
  const cpu = report.processes.reduce((sum, one) => sum + (one.alive ? one.cpu_percent : 0), 0);
  const dropped = report.cameras.reduce((sum, camera) => sum + droppedOf(camera), 0);
  const found = [
    figure("Cameras active", `${active} of ${report.cameras.length}`, `up for ${span(report.uptime_seconds)}`, active < report.cameras.length ? "warn" : "good"),
    figure("Frames a second", rate(fps), report.video ? `${rate(report.video.packet_fps)} packets a second` : "JPEG"),
    figure("Camera to Redis", `${rate(report.latency_ms.p50)} ms`, `half of the frames; p99 ${rate(report.latency_ms.p99)} ms`),
    figure("Dropped", count(dropped), report.video ? "frames and packets since the start" : "frames since the start", dropped ? "warn" : "good"),
    figure("CPU", `${Math.round(cpu)} %`, "of one core, since the start"),
  ];
  const redis = servers.redis?.up === false ? null : servers.redis;
  const nodes = servers.redis?.nodes ?? [];
  // Of a cluster, only the writer tells whether all of it is away. It names single nodes: "redis 10.0.0.1:6379".
  const away = report.outages.find((outage) => outage.server === "redis" && (outage.role === "writer" || !nodes.length));
  if (nodes.length) {
    const masters = nodes.filter((node) => node.role === "master");
    const [answering, all] = [masters, nodes].map((some) => some.filter((node) => node.state === "answers").length);
    const kind = answering < masters.length ? "bad" : all < nodes.length ? "warn" : "good";
    found.push(figure("Redis masters", `${answering} of ${masters.length}`, `answer; ${all} of all ${nodes.length} nodes`, kind));
  }
  if (away) found.push(figure("Redis", "away", `for ${span(away.seconds)}`, "bad"));
  else if (redis) {
    const memory = redis.used_memory_bytes;
    const most = redis.maxmemory_bytes;
    const asked = redis.keyspace_hits + redis.keyspace_misses;
    found.push(figure("Redis memory", bytes(memory), most ? `of ${bytes(most)}` : "no limit set", most && memory / most > 0.95 ? "bad" : ""));
    found.push(figure("Redis commands", `${count(redis.ops_per_s)}/s`, `${plural(redis.connected_clients, "client")}; version ${redis.version}`));
    found.push(figure("Redis hits", asked ? `${Math.round((100 * redis.keyspace_hits) / asked)} %` : "–", `${plural(redis.expired_keys, "key")} expired, ${count(redis.evicted_keys)} evicted`));
  }
  const publisher = report.publisher;
  if (!publisher) found.push(figure("RabbitMQ", "none", "metadata stays in Redis"));
  else found.push(figure("RabbitMQ", publisher.connected ? "connected" : "away", `${count(publisher.confirmed)} confirmed, ${publisher.lag_seconds} s behind`, publisher.connected ? "good" : "bad"));
  return found;
}

function processes(report) {
  return table("Processes", [["Process", true], ["State", true], ["pid"], ["CPU s"], ["CPU %"], ["Restarts"], ["Heartbeat"]],
    report.processes.map((one) => [one.name, h("span", { class: `state ${one.alive ? "active" : "offline"}` }, one.alive ? "runs" : "down"), `${one.pid}`, one.cpu_seconds.toFixed(1), one.cpu_percent.toFixed(1), count(one.restarts), span(one.heartbeat_seconds)]));
}

const NODE_KINDS = { answers: "active", hangs: "critical", away: "offline", failed: "offline" };

function redisNodes(nodes) {
  return table("Redis nodes", [["Node", true], ["Role", true], ["State", true], ["Memory"], ["Limit"], ["Fill"], ["Replicas"]],
    nodes.map((node) => {
      const told = node.used_memory_bytes > 0;
      const most = node.maxmemory_bytes;
      return [
        node.address.replace(/^[a-z]+:\/\//, ""),
        node.role === "none" ? "–" : node.role,
        h("span", { class: `state ${NODE_KINDS[node.state]}`, title: node.error || null }, node.state),
        told ? bytes(node.used_memory_bytes) : "–",
        told ? (most ? bytes(most) : "none") : "–",
        told && most ? meter(node.used_memory_bytes / most) : "–",
        told && node.role === "master" ? h("span", { class: node.connected_replicas ? "" : "state warning" }, count(node.connected_replicas)) : "–",
      ];
    }));
}

function rings(report) {
  const rows = report.cameras.flatMap((camera) => [[camera.name || camera.id, camera.ring], ...(camera.video ? [[`${camera.name || camera.id}, video`, camera.video.ring]] : [])]);
  return table("Rings", [["Camera", true], ["Fill"], ["Held"], ["Size"], ["Lasts"]],
    rows.map(([name, ring]) => [name, meter(ring.fill), count(ring.held), bytes(ring.capacity_bytes), span(ring.lasts_seconds)]));
}
