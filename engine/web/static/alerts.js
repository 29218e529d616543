// The alerts that stand now.

import { h } from "./dom.js";
import { dateTime } from "./format.js";
import { onSite, site } from "./live.js";

export function alerts(main) {
  const body = h("div", {});
  main.append(h("div", { class: "sheet" }, h("h1", {}, "Alerts"), body));
  let shown = null;

  function update() {
    const text = JSON.stringify(site.alerts);
    if (text === shown) return;
    shown = text;
    if (!site.alerts.length) {
      body.replaceChildren(h("p", { class: "empty" }, site.at ? "No alert stands." : "Loading …"));
      return;
    }
    const worst = [...site.alerts].sort((one, other) => (one.severity === "critical" ? 0 : 1) - (other.severity === "critical" ? 0 : 1));
    body.replaceChildren(h("ul", { class: "alerts" }, worst.map((alert) => h("li", { class: "card" },
      h("span", { class: `state ${alert.severity}` }, alert.severity),
      h("span", { class: "text" }, alert.text),
      h("span", { class: "quiet" }, alert.since_nano ? `since ${dateTime(alert.since_nano / 1e6)}` : ""),
      alert.advice ? h("span", { class: "advice" }, alert.advice) : null))));
  }

  const end = onSite(update);
  update();
  return end;
}
