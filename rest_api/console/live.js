// What is going on now: health of both halves, lines, running calls.

import { data } from "./api.js";
import { callTable, card, h, length, problem, tile } from "./dom.js";

const INTERVAL_MS = 2000;

export async function live(page, { signal }) {
  await draw(page);
  (async () => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
      if (signal.aborted) return;
      if (document.hidden) continue;
      await draw(page).catch((error) => page.replaceChildren(problem(error)));
    }
  })();
}

async function draw(page) {
  const [health, running] = await Promise.all([
    data("health"),
    data("calls", { status: "running", limit: 100 }).catch((error) => ({ error })),
  ]);
  const phones = health.telephony ?? [];
  const calls = phones.reduce((sum, phone) => sum + phone.num_calls, 0);
  const lines = phones.reduce((sum, phone) => sum + phone.max_calls, 0);
  const tone = { healthy: "good", degraded: "warn" }[health.status] ?? "bad";
  page.replaceChildren(
    h("h1", {}, "Live"),
    h("div", { class: "tiles" },
      tile(health.status, health.detail || "service", tone),
      tile(`${calls} / ${lines}`, "calls on lines"),
      tile(`${health.sessions.now} / ${health.sessions.max}`, "dialogues"),
      tile(health.queue ? health.queue.waiting : "–", "requests waiting"),
      tile(length(health.uptime_s), "up"),
    ),
    runningCard(running),
    card("Model", facts({
      name: health.model.name || "none",
      state: health.model.is_ready ? "ready" : "not ready",
      weights: health.model.weights ?? "–",
      device: health.model.device || "–",
      ...(health.model.detail ? { note: health.model.detail } : {}),
      ...(health.last_error ? { "last error": `${health.last_error.code}: ${health.last_error.message} (${length(health.last_error.age_s)} ago)` } : {}),
    })),
    ...phones.map((phone) => card(`Phone half ${phone.name}`, facts({
      state: phone.is_stale ? `silent for ${length(phone.age_s)}` : phone.is_draining ? "draining" : "taking calls",
      calls: `${phone.num_calls} of ${phone.max_calls}`,
      "late frames": phone.num_frames_late,
      up: length(phone.uptime_s),
      ...(phone.last_error ? { "last error": phone.last_error } : {}),
    }))),
    ...(phones.length ? [] : [card("Phone half", h("p", { class: "quiet" }, "None has reported: this server runs without telephony, or the phone half cannot reach it."))]),
  );
}

function runningCard(running) {
  if (running.error) return card("Running calls", h("p", { class: "bad" }, running.error.message));
  if (!running.calls.length) return card("Running calls", h("p", { class: "quiet" }, running.note ?? "No call is running."));
  return card("Running calls", callTable(running.calls));
}

export function facts(values) {
  return h("dl", {}, Object.entries(values).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value)))));
}
