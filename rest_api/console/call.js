// One call: facts, recording, what was said in time, where each turn's time went.

import { data } from "./api.js";
import { controls } from "./controls.js";
import { card, facts, h, length, milliseconds, modelName, moment, outcome, wide } from "./dom.js";
import { recording } from "./recording.js";
import { waterfall } from "./charts.js";

const RESULTS = { ok: "done", later: "kept, told as soon as VICIdial takes it", failed: "not done" };
const EVENTS = {
  answered_by: (event) => `answered by: ${event.name.replaceAll("_", " ")}${event.detail ? ` (${event.detail.replaceAll("_", " ")})` : ""}`,
  barge_in: () => "the caller interrupted",
  caller_audio: (event) =>
    event.name === "missing" ? "nothing comes of the caller's audio" : "the caller's audio is back",
  went_on: () => "the bot stopped for a noise and went on",
  wish: (event) => `the caller's words were taken for a wish: ${event.name.replaceAll("_", " ")}`,
  action: (event) => `the bot asked for: ${event.name}${event.detail ? ` (${event.detail})` : ""}`,
  key: (event) => (event.count > 1 ? `${event.count} keys were pressed` : "a key was pressed"),
  prompt: (event) => `recorded prompt: ${event.name.replaceAll("_", " ")}`,
  error: (event) => `fault ${event.name}: ${event.detail}`,
  confirmed: (event) => `${RESULTS[event.name] ?? event.name}: ${event.detail}`,
  recording: (event) => `recording ${event.name} (${event.detail})`,
  operator: (event) => `operator ${event.detail.split(":")[0]}: ${event.name.replaceAll("_", " ")}${event.detail.includes(":") ? `, “${event.detail.split(":").slice(1).join(":").trim()}”` : ""}`,
  leg_closed: (event) => `line closed: ${event.name.replaceAll("_", " ")}${event.detail ? ` (${event.detail})` : ""}`,
};

export async function call(page, { argument, signal }) {
  const found = (await data(`calls/${encodeURIComponent(argument)}`)).call;
  const player = found.has_recording ? await recording(found, signal).catch((error) => ({ element: h("p", { class: "bad" }, error.message), seek: null })) : null;
  page.append(
    h("div", { class: "top" }, h("h1", {}, "Call from ", found.caller || "an unknown number"), h("p", {}, outcome(found.status))),
    ...(found.status === "running" ? [await steering(found, signal)] : []),
    card("Facts", facts({
      began: moment(found.started_at),
      length: length(found.duration_s) || "running",
      campaign: found.campaign,
      outcome: outcome(found.status),
      reason: found.reason || "–",
      disposition: found.disposition || "–",
      "transferred to": found.transfer_to || "–",
      turns: found.num_turns,
      interruptions: found.num_barge_ins,
      "audio leg": (found.leg || "–").replaceAll("_", " "),
      disclosure: { heard: "greeting heard to its end", cut_short: "greeting cut short" }[found.disclosure] ?? "–",
      ...(found.is_opt_out ? { consent: "wants no more calls" } : {}),
      ...(found.callback ? { "call back": found.callback } : {}),
      ...(found.notes ? { notes: found.notes } : {}),
      ...(found.lead_id ? { lead: `${found.lead_id}${found.list_id ? ` of list ${found.list_id}` : ""}` } : {}),
      ...(found.vicidial_call_id ? { "VICIdial call": found.vicidial_call_id, "VICIdial campaign": found.vicidial_campaign || "–" } : {}),
      ...(found.in_group ? { "in-group": found.in_group } : {}),
      ...(found.agent_user ? { line: found.agent_user } : {}),
      persona: found.persona_version || "–",
      model: h("span", {}, found.model ? modelName(found.model) : "–", found.model_version ? `, ${found.model_version}` : ""),
      voice: [found.voice || "default", found.voice_version].filter(Boolean).join(", "),
      extension: found.extension || "–",
      channel: found.channel,
      uniqueid: found.uniqueid,
      "call id": found.call_id,
      ...(found.error ? { error: found.error } : {}),
    })),
    player ? card("Recording", player.element) : card("Recording", h("p", { class: "quiet" }, found.recording ? "It has expired or was deleted." : "This call was not recorded.")),
    card("Conversation", conversation(found, player?.seek)),
    card("Where each reply's time went", delays(found.turns)),
  );
}

// The call as it is now, when some phone half has it still.
async function steering(found, signal) {
  const { phones } = await data("live/calls");
  const now = phones.flatMap((phone) => phone.calls).find((one) => one.call_id === found.call_id);
  if (!now) return card("Controls", h("p", { class: "quiet" }, "No phone half has this call now."));
  const steer = controls(found.call_id, signal);
  steer.show(now);
  return card("Controls", steer.element);
}

function conversation(found, seek) {
  const entries = [];
  for (const turn of found.turns) {
    if (turn.said_kind) {
      const at = turn.speech_ended_ms === null ? turn.asked_ms : turn.speech_ended_ms - turn.said_ms;
      entries.push({ at: Math.max(0, at), node: said(turn) });
    }
    if (turn.reply_text || turn.heard_text) {
      entries.push({ at: turn.played_ms ?? turn.released_ms ?? turn.asked_ms, node: reply(turn) });
    }
  }
  for (const event of together(found.events)) {
    const tell = EVENTS[event.kind] ?? (() => event.kind);
    const tone = event.kind === "error" ? "bad" : "";
    entries.push({ at: event.at_ms, node: h("div", { class: `event ${tone}` }, tell(event)) });
  }
  if (!entries.length) return h("p", { class: "quiet" }, "Nothing was said.");
  entries.sort((a, b) => a.at - b.at);
  return h("ol", { class: "talk" }, entries.map(({ at, node }) => {
    const shown = `${length(Math.floor(at / 1000))}.${Math.floor((at % 1000) / 100)}`;
    const time = h("button", { class: "at", type: "button", disabled: !seek, "aria-label": seek ? `Play from ${shown}` : `at ${shown}`, onclick: () => seek?.(at / 1000) }, shown);
    return h("li", {}, time, node);
  }));
}

// Keys in a row are one entry.
function together(events) {
  const shown = [];
  for (const event of events) {
    const last = shown.at(-1);
    if (event.kind === "key" && last?.kind === "key") last.count += 1;
    else if (event.kind === "key" && last?.kind === "recording" && shown.at(-2)?.kind === "key") shown.at(-2).count += 1;
    else shown.push({ ...event, count: 1 });
  }
  return shown;
}

function said(turn) {
  const spoke = `spoke for ${(turn.said_ms / 1000).toFixed(1)} s`;
  const what = turn.said_kind === "keys" ? [`pressed ${turn.said_text}`] : turn.said_text ? [turn.said_text, h("span", { class: "quiet" }, ` – ${spoke}`)] : [spoke];
  return h("div", { class: "bubble by-caller" }, h("span", { class: "who" }, "Caller "), ...what);
}

function reply(turn) {
  const heard = turn.heard_text;
  const rest = turn.reply_text.startsWith(heard) ? turn.reply_text.slice(heard.length) : "";
  const isOpen = turn.fate === "";
  const parts = isOpen || turn.fate === "heard" ? [turn.reply_text] : [heard, rest ? h("span", { class: "unheard", title: "not heard" }, rest) : null];
  const notes = { interrupted: "interrupted", cut_off: "cut off by the end of the call", dropped: "not heard", failed: "failed", "": "in progress" };
  const note = turn.fate in notes ? h("span", { class: "quiet" }, ` – ${notes[turn.fate]} after ${(turn.heard_ms / 1000).toFixed(1)} s`) : null;
  return h("div", { class: "bubble by-bot" }, h("span", { class: "who" }, turn.source === "phrase" ? `Bot, ${turn.phrase.replaceAll("_", " ")} ` : "Bot "), ...parts.filter(Boolean), note);
}

function delays(turns) {
  const timed = turns.filter((turn) => turn.source === "reply" && turn.played_ms !== null && turn.speech_ended_ms !== null);
  if (!timed.length) return h("p", { class: "quiet" }, "No reply was timed.");
  const columns = [["turn", "Turn"], ["response_ms", "Response"], ["wait", "End sure after"], ["queue_ms", "Queue"], ["encode_ms", "Encode"], ["first_token_ms", "First token"], ["first_audio_ms", "First audio"], ["completion_tokens", "Tokens"]];
  const value = (turn, name) => {
    if (name === "turn" || name === "completion_tokens") return String(turn[name]);
    if (name === "wait") return milliseconds(turn.released_ms - turn.speech_ended_ms);
    return milliseconds(turn[name]);
  };
  return h("div", {}, waterfall(timed),
    h("details", {}, h("summary", {}, "The same in numbers"), wide("Stages in numbers", h("table", {},
      h("thead", {}, h("tr", {}, columns.map(([, title]) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, timed.map((turn) => h("tr", {}, columns.map(([name]) => h("td", {}, value(turn, name))))))))));
}
