// Elements from data. Text only ever becomes text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return element;
}

export const OUTCOMES = {
  completed: "completed",
  transfer: "transferred",
  caller_hung_up: "caller hung up",
  no_input: "no input",
  failed: "failed",
  refused: "refused",
  interrupted: "interrupted",
  running: "running",
};

export function outcome(status) {
  const known = status in OUTCOMES ? status : "";
  return h("span", {}, h("span", { class: `dot ${known}`, "aria-hidden": "true" }), OUTCOMES[status] ?? status);
}

export function moment(seconds) {
  if (seconds === null) return "";
  const date = new Date(seconds * 1000);
  const text = date.toLocaleString([], { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return h("time", { datetime: date.toISOString() }, text);
}

export function length(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function milliseconds(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}

export function tile(value, name, tone = "") {
  const isWord = typeof value === "string" && value.length > 9;
  return h("div", { class: "tile" }, h("b", { class: `${tone} ${isWord ? "word" : ""}` }, String(value)), h("span", {}, name));
}

export function card(title, ...children) {
  return h("section", { class: "card", "aria-label": title }, h("h2", {}, title), ...children);
}

export function problem(error) {
  return h("section", { class: "card problem", role: "alert" }, h("h2", { class: "bad" }, "This cannot be shown now"), h("p", {}, error.message));
}

export function facts(values) {
  return h("dl", {}, Object.entries(values).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value)))));
}

// Wide content that scrolls sideways by itself, with keys as well.
export function wide(name, content) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, content);
}

export function callTable(calls) {
  const heads = ["Began", "Caller", "Campaign", "Outcome", "Length", "Turns", "Disposition"];
  const cell = (name, content, kind = "") => h("td", { "data-name": name, class: kind }, content);
  return wide("Calls", h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, calls.map((call) => h("tr", {},
      h("td", {}, h("a", { href: `#/call/${encodeURIComponent(call.call_id)}` }, moment(call.started_at))),
      cell("from", call.caller || "unknown"),
      cell("campaign", call.campaign),
      h("td", {}, outcome(call.status)),
      cell("length", length(call.duration_s ?? Date.now() / 1000 - call.started_at)),
      call.status === "running" ? h("td", {}) : cell("turns", String(call.num_turns)),
      call.disposition ? cell("disposition", call.disposition) : h("td", {}),
    )))));
}

// A folder by its last two names, in full where somebody points at it.
export function modelName(name) {
  const isFolder = name.startsWith("/");
  return h("span", { title: name }, isFolder ? name.split("/").filter(Boolean).slice(-2).join("/") : name);
}
