// What is going on now: health of both halves, lines, running calls and their controls.

import { act, data } from "./api.js";
import { button, controls } from "./controls.js";
import { card, facts, h, length, modelName, milliseconds, problem, tile, wide } from "./dom.js";

const INTERVAL_MS = 1000;
const PHASES = { listening: "waiting", hearing: "caller speaks", thinking: "thinking", speaking: "bot speaks", ending: "ends" };

export async function live(page, { signal }) {
  const shown = { top: h("div", {}), calls: new RunningCalls(signal), rest: h("div", {}) };
  page.append(h("h1", {}, "Live"), shown.top, shown.calls.element, shown.rest);
  await draw(shown);
  (async () => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
      if (signal.aborted) return;
      if (document.hidden) continue;
      await draw(shown).catch((error) => shown.top.replaceChildren(problem(error)));
    }
  })();
}

async function draw({ top, calls, rest }) {
  const [health, running] = await Promise.all([data("health"), data("live/calls")]);
  const phones = health.telephony ?? [];
  const sum = (name) => phones.reduce((total, phone) => total + phone[name], 0);
  const tone = { healthy: "good", degraded: "warn" }[health.status] ?? "bad";
  top.replaceChildren(h("div", { class: "tiles" },
    tile(health.status, health.detail || "service", tone),
    tile(`${phones.reduce((total, phone) => total + callsOf(phone, running.phones), 0)} / ${sum("max_calls")}`, "calls on lines"),
    tile(`${health.sessions.now} / ${health.sessions.max}`, "dialogues"),
    tile(health.queue ? health.queue.waiting : "–", "requests waiting"),
    tile(sum("num_frames_late"), "late frames"),
    tile(length(health.uptime_s), "up"),
  ));
  calls.show(running.phones.flatMap((phone) => phone.calls));
  drawRest(rest, health, phones, running.phones);
}

// A connected phone half's list is a second old, its heartbeat five.
function callsOf(phone, lines) {
  return lines.find((line) => line.name === phone.name)?.calls.length ?? phone.num_calls;
}

// Redrawn only where something changed, so that nothing is taken from under a finger.
function drawRest(rest, health, phones, lines) {
  const news = JSON.stringify([health.model, health.last_error?.message, phones.map((phone) => ({ ...phone, age_s: 0, uptime_s: Math.floor(phone.uptime_s / 60) })), lines.map(({ name, is_drained, vicidial, dialers, calls }) => ({ name, is_drained, vicidial, num_calls: calls.length, dialers: dialers.map((dialer) => ({ ...dialer, last_call_s: Math.floor(dialer.last_call_s / 10) })) }))]);
  if (rest.dataset.news === news) return;
  rest.dataset.news = news;
  rest.replaceChildren(
    card("Model", facts({
      name: health.model.name ? modelName(health.model.name) : "none",
      state: health.model.is_ready ? "ready" : "not ready",
      weights: health.model.weights ?? "–",
      device: health.model.device || "–",
      ...(health.model.version ? { version: health.model.version } : {}),
      ...(health.model.voice ? { voice: health.model.voice } : {}),
      ...(health.model.detail ? { note: health.model.detail } : {}),
      ...(health.last_error ? { "last error": `${health.last_error.code}: ${health.last_error.message} (${length(health.last_error.age_s)} ago)` } : {}),
    })),
    ...phones.map((phone) => phoneCard(phone, lines.find((line) => line.name === phone.name))),
    ...(phones.length ? [] : [card("Phone half", h("p", { class: "quiet" }, "None has reported: this server runs without telephony, or the phone half cannot reach it."))]),
  );
}

function phoneCard(phone, line) {
  const status = h("span", { class: "bad", role: "status" });
  const steer = (name) => act(`live/phones/${encodeURIComponent(phone.name)}/${name}`).then(() => { status.textContent = ""; }, (error) => { status.textContent = error.message; });
  const vicidial = line?.vicidial ?? "";
  return card(`Phone half ${phone.name}`,
    facts({
      state: phone.is_stale ? `silent for ${length(phone.age_s)}` : phone.is_draining ? "takes no new calls" : "taking calls",
      calls: `${line ? line.calls.length : phone.num_calls} of ${phone.max_calls}`,
      "late frames": phone.num_frames_late,
      up: length(phone.uptime_s),
      VICIdial: h("span", { class: vicidial === "ok" ? "good" : vicidial ? "bad" : "" }, vicidial || "not used"),
      ...(phone.last_error ? { "last error": phone.last_error } : {}),
    }),
    line?.dialers.length ? dialerTable(line.dialers) : h("p", { class: "quiet" }, "No dialer has sent a call since its start."),
    line ? h("div", { class: "controls" }, line.is_drained ? button("Take new calls", () => steer("resume")) : button("Take no new calls", () => steer("drain")), status) : null,
  );
}

function dialerTable(dialers) {
  return wide("Dialers", h("table", {},
    h("caption", {}, "Dialers"),
    h("thead", {}, h("tr", {}, ["Address", "Asterisk", "Audio", "Calls", "Last call"].map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, dialers.map((dialer) => h("tr", {}, [dialer.address, dialer.asterisk || "–", dialer.leg.replaceAll("_", " ") || "–", dialer.num_calls, `${length(dialer.last_call_s)} ago`].map((cell) => h("td", {}, String(cell))))))));
}

// The list of running calls; each call keeps its row, and the row its controls.
class RunningCalls {
  constructor(signal) {
    this.signal = signal;
    this.rows = new Map();
    this.list = h("ul", { class: "running" });
    this.none = h("p", { class: "quiet" }, "No call is running.");
    this.element = card("Running calls", this.none, this.list);
  }

  show(calls) {
    const ids = new Set(calls.map((call) => call.call_id));
    for (const [id, row] of this.rows) {
      if (!ids.has(id)) {
        row.element.remove();
        this.rows.delete(id);
        row.stop.abort();
      }
    }
    for (const call of calls) {
      if (!this.rows.has(call.call_id)) {
        const row = callRow(call, this.signal);
        this.rows.set(call.call_id, row);
        this.list.append(row.element);
      }
      this.rows.get(call.call_id).show(call);
    }
    this.none.hidden = calls.length > 0;
  }
}

function callRow(call, signal) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const value = () => h("dd", {});
  const values = { phase: value(), seconds: value(), response: value(), turns: value(), recording: value() };
  const meter = (name) => h("meter", { min: -60, max: 0, low: -40, optimum: -20, "aria-label": name, title: name });
  const levels = { caller: meter("level of the caller"), bot: meter("level of the bot") };
  const steer = controls(call.call_id, stop.signal);
  const fact = (name, node) => h("div", {}, h("dt", {}, name), node);
  const element = h("li", { "data-call": call.call_id },
    h("div", { class: "top" }, h("h3", {}, h("a", { href: `#/call/${encodeURIComponent(call.call_id)}` }, call.caller || "unknown number")), h("span", { class: "quiet" }, [call.campaign, call.lead_id ? `lead ${call.lead_id}` : "", call.leg.replaceAll("_", " ")].filter(Boolean).join(" · "))),
    h("dl", { class: "state" }, fact("now", values.phase), fact("time", values.seconds), fact("caller", h("dd", {}, levels.caller)), fact("bot", h("dd", {}, levels.bot)), fact("last response", values.response), fact("turns, interruptions", values.turns), fact("recording", values.recording)),
    steer.element,
  );
  return {
    element,
    stop,
    show(now) {
      values.phase.textContent = PHASES[now.phase] ?? now.phase;
      values.seconds.textContent = length(now.seconds);
      values.response.textContent = milliseconds(now.response_ms);
      values.turns.textContent = `${now.num_turns}, ${now.num_barge_ins}`;
      values.recording.textContent = now.recording || "off";
      levels.caller.value = Math.max(-60, now.caller_dbfs);
      levels.bot.value = Math.max(-60, now.bot_dbfs);
      steer.show(now);
    },
  };
}
