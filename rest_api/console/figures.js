// Figures over time: calls by outcome, response delays.

import { data } from "./api.js";
import { callsChart, countsChart, delayChart } from "./charts.js";
import { OUTCOMES, card, h, milliseconds, tile, wide } from "./dom.js";

const SPANS = { "24h": ["24 hours", 86400, 3600], "7d": ["7 days", 7 * 86400, 6 * 3600], "30d": ["30 days", 30 * 86400, 86400] };

export async function figures(page, { query }) {
  const name = query.get("span") in SPANS ? query.get("span") : "24h";
  const [title, spanS, bucketS] = SPANS[name];
  const until = Math.floor(Date.now() / 1000);
  const found = await data("calls/figures", { since: until - spanS, until, bucket_s: bucketS });
  const counts = {};
  for (const bucket of found.buckets) for (const [kind, number] of Object.entries(bucket.calls)) counts[kind] = (counts[kind] ?? 0) + number;
  const share = (kind) => (found.num_calls ? `${Math.round((100 * (counts[kind] ?? 0)) / found.num_calls)} %` : "–");
  page.append(
    h("div", { class: "top" }, h("h1", {}, `Figures, last ${title}`), h("div", { class: "segments", role: "group", "aria-label": "Time span" },
      Object.entries(SPANS).map(([key, [text]]) => h("button", { type: "button", "aria-pressed": key === name ? "true" : "false", onclick: () => { location.hash = `#/figures?span=${key}`; } }, text)))),
    h("div", { class: "tiles" },
      tile(found.num_calls, "calls"),
      tile(share("transfer"), "transferred"),
      tile(share("completed"), "completed"),
      tile(share("failed"), "failed", counts.failed ? "bad" : ""),
      tile(milliseconds(found.response_ms?.p50), "response, median"),
      tile(milliseconds(found.response_ms?.p95), "response, p95"),
    ),
    ...(found.num_calls ? [
      card("Calls by outcome", callsChart(found.buckets, found.bucket_s)),
      card("Response delay: end of the caller's speech to the first sound of the reply", found.response_ms ? delayChart(found.buckets, found.bucket_s) : h("p", { class: "quiet" }, "No reply was timed.")),
      card("Interruptions and faults", countsChart(found.buckets, found.bucket_s)),
      card("The same in numbers", table(found.buckets)),
    ] : [card("Calls by outcome", h("p", { class: "quiet" }, found.note ?? "No calls in this time."))]),
  );
}

function table(buckets) {
  const kinds = Object.keys(OUTCOMES).filter((kind) => buckets.some((bucket) => bucket.calls[kind]));
  const filled = buckets.filter((bucket) => Object.keys(bucket.calls).length).reverse();
  return h("details", {}, h("summary", {}, `${filled.length} ${filled.length === 1 ? "span" : "spans"} with calls`), wide("Figures in numbers", h("table", {},
    h("thead", {}, h("tr", {}, ["From", ...kinds.map((kind) => OUTCOMES[kind]), "turns", "interruptions", "faults", "opt-outs", "p50", "p95", "p99"].map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, filled.map((bucket) => h("tr", {},
      h("td", {}, new Date(bucket.at * 1000).toLocaleString()),
      kinds.map((kind) => h("td", {}, String(bucket.calls[kind] ?? 0))),
      ["turns", "barge_ins", "faults", "opt_outs"].map((name) => h("td", {}, String(bucket[name]))),
      ["p50", "p95", "p99"].map((rank) => h("td", {}, milliseconds(bucket.response_ms?.[rank]))),
    ))))));
}
