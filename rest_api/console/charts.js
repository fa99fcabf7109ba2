// Charts as SVG, each with a name and, beside it, the same numbers in a table.

import { OUTCOMES, h, milliseconds, svg } from "./dom.js";

const WIDE = 900;
const NARROW = 440; // on a telephone, so that its text stays readable
const LEFT = 52;
const RIGHT = 12;

function width() {
  return window.innerWidth < 700 ? NARROW : WIDE;
}

function niceTop(value) {
  const scale = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 1.2, 1.6, 2, 4, 6, 8, 10].map((step) => step * scale).find((top) => top >= value) ?? 10 * scale;
}

function axes(height, top, unit, labels) {
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const y = height - share * height;
    parts.push(svg("line", { class: "axis", x1: LEFT, x2: width() - RIGHT, y1: y, y2: y }));
    parts.push(svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, `${top * share}${unit}`));
  }
  for (const { x, text, anchor } of labels) parts.push(svg("text", { x, y: height + 18, "text-anchor": anchor ?? "middle" }, text));
  return parts;
}

function timeLabels(buckets, bucketS, xOf) {
  const step = Math.ceil(buckets.length / (width() === NARROW ? 4 : 6));
  const isLong = bucketS * buckets.length > 2 * 86400;
  const form = isLong ? { month: "2-digit", day: "2-digit" } : { hour: "2-digit", minute: "2-digit", hour12: false };
  const last = buckets.length - 1;
  const indexes = buckets.map((_, index) => index).filter((index) => (last - index) % step === 0);
  return indexes.map((index) => ({
    x: xOf(index),
    text: new Date(buckets[index].at * 1000).toLocaleString([], form),
    anchor: index === last ? "end" : "middle",
  }));
}

function chart(height, name, ...parts) {
  return svg("svg", { viewBox: `0 -10 ${width()} ${height + 34}`, role: "img", "aria-label": name }, ...parts);
}

function legend(entries) {
  return h("ul", { class: "legend" }, entries.map(([kind, text]) => h("li", {}, h("span", { class: `dot ${kind}`, "aria-hidden": "true" }), text)));
}

export function callsChart(buckets, bucketS) {
  const height = 200;
  const kinds = Object.keys(OUTCOMES).filter((kind) => buckets.some((bucket) => bucket.calls[kind]));
  const total = (bucket) => Object.values(bucket.calls).reduce((a, b) => a + b, 0);
  const top = niceTop(Math.max(...buckets.map(total), 2));
  const step = (width() - LEFT - RIGHT) / buckets.length;
  const middle = (index) => LEFT + (index + 0.5) * step;
  const bars = buckets.flatMap((bucket, index) => {
    let y = height;
    return kinds.filter((kind) => bucket.calls[kind]).map((kind) => {
      const size = (bucket.calls[kind] / top) * height;
      y -= size;
      const text = `${new Date(bucket.at * 1000).toLocaleString()}: ${bucket.calls[kind]} ${OUTCOMES[kind]}`;
      return svg("rect", { class: `fill ${kind}`, x: LEFT + index * step + step * 0.1, width: step * 0.8, y, height: size }, svg("title", {}, text));
    });
  });
  return h("div", {}, chart(height, "Calls by outcome over time", ...axes(height, top, "", timeLabels(buckets, bucketS, middle)), ...bars), legend(kinds.map((kind) => [kind, OUTCOMES[kind]])));
}

// Interruptions per hundred turns and faulty calls per hundred, so that busy hours compare.
export function countsChart(buckets, bucketS) {
  const height = 160;
  const kinds = [["barge-ins", "interruptions per 100 turns", (bucket) => [bucket.barge_ins, bucket.turns]], ["faults", "calls with a fault, per 100", (bucket) => [bucket.faults, Object.values(bucket.calls).reduce((a, b) => a + b, 0)]], ["opt-outs", "opt-outs per 100 calls", (bucket) => [bucket.opt_outs, Object.values(bucket.calls).reduce((a, b) => a + b, 0)]]];
  const share = ([part, whole]) => (whole ? (100 * part) / whole : null);
  const top = niceTop(Math.max(10, ...buckets.flatMap((bucket) => kinds.map(([, , of]) => share(of(bucket)) ?? 0))));
  const step = (width() - LEFT - RIGHT) / buckets.length;
  const x = (index) => LEFT + (index + 0.5) * step;
  const lines = kinds.flatMap(([kind, name, of]) => line(buckets, kind, x, (value) => height - (value / top) * height, (bucket) => share(of(bucket)), (bucket, value) => `${name}: ${value.toFixed(1)} (${of(bucket)[0]} of ${of(bucket)[1]})`));
  return h("div", {}, chart(height, "Interruptions, faults and opt-outs over time", ...axes(height, top, "", timeLabels(buckets, bucketS, x)), ...lines), legend(kinds.map(([kind, name]) => [kind, name])));
}

// A line through what is known, broken where nothing is, with a point for each value.
function line(buckets, kind, x, y, valueOf, titleOf) {
  const path = [];
  const points = [];
  let isBroken = true;
  buckets.forEach((bucket, index) => {
    const value = valueOf(bucket);
    if (value === null || value === undefined) { isBroken = true; return; }
    path.push(`${isBroken ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
    isBroken = false;
    points.push(svg("circle", { class: `point ${kind}`, cx: x(index), cy: y(value), r: 3 }, svg("title", {}, `${new Date(bucket.at * 1000).toLocaleString()}: ${titleOf(bucket, value)}`)));
  });
  return [svg("path", { class: `stroke ${kind}`, d: path.join("") }), ...points];
}

export function delayChart(buckets, bucketS) {
  const height = 200;
  const kinds = ["p50", "p95", "p99"];
  const known = buckets.flatMap((bucket) => (bucket.response_ms ? [bucket.response_ms.p99] : []));
  const top = niceTop(Math.max(...known, 1000));
  const step = (width() - LEFT - RIGHT) / buckets.length;
  const x = (index) => LEFT + (index + 0.5) * step;
  const y = (value) => height - (value / top) * height;
  const lines = kinds.flatMap((kind) => line(buckets, kind, x, y, (bucket) => bucket.response_ms?.[kind], (bucket, value) => `${kind} ${value} ms of ${bucket.response_ms.count} replies`));
  return h("div", {}, chart(height, "Response delay over time", ...axes(height, top, " ms", timeLabels(buckets, bucketS, x)), ...lines), legend(kinds.map((kind) => [kind, { p50: "half of the replies faster (p50)", p95: "95 % faster (p95)", p99: "99 % faster (p99)" }[kind]])));
}

// Per reply: above, the wait for the end of the turn to be sure; below, what the speech
// half did from the moment it was asked; the stroke is where the caller heard the bot.
export function waterfall(turns) {
  const starts = turns.map((turn) => Math.min(0, turn.asked_ms - turn.speech_ended_ms));
  const from = Math.min(...starts);
  const to = niceTop(Math.max(...turns.map((turn) => Math.max(turn.response_ms, turn.asked_ms - turn.speech_ended_ms + turn.first_audio_ms))));
  const rowHeight = 40;
  const x = (ms) => LEFT + ((ms - from) / (to - from)) * (width() - LEFT - 70);
  const bar = (kind, begin, end, y, name) => svg("rect", { class: `fill ${kind}`, x: x(begin), width: Math.max(1, x(end) - x(begin)), y, height: 11, rx: 2 }, svg("title", {}, `${name}: ${milliseconds(end - begin)}`));
  const height = turns.length * rowHeight;
  const rows = turns.flatMap((turn, index) => {
    const y = index * rowHeight;
    const asked = turn.asked_ms - turn.speech_ended_ms;
    const encoded = Math.min(turn.first_token_ms, turn.queue_ms + turn.encode_ms);
    return [
      svg("text", { x: LEFT - 8, y: y + 17, "text-anchor": "end" }, `turn ${turn.turn}`),
      bar("wait", 0, turn.released_ms - turn.speech_ended_ms, y, "until the end of the turn was sure"),
      bar("queue", asked, asked + turn.queue_ms, y + 13, "queue"),
      bar("encode", asked + turn.queue_ms, asked + encoded, y + 13, "encode"),
      bar("first-token", asked + encoded, asked + turn.first_token_ms, y + 13, "to the first token"),
      bar("first-audio", asked + turn.first_token_ms, asked + turn.first_audio_ms, y + 13, "to the first audio"),
      svg("rect", { class: "mark", x: x(turn.response_ms) - 1, width: 2, y: y - 2, height: 28 }),
      svg("text", { x: x(turn.response_ms) + 7, y: y + 16 }, milliseconds(turn.response_ms)),
    ];
  });
  const grid = [0, 0.5, 1].flatMap((share) => {
    const ms = to * share;
    return [svg("line", { class: "axis", x1: x(ms), x2: x(ms), y1: -8, y2: height }), svg("text", { x: x(ms), y: height + 16, "text-anchor": "middle" }, `${ms} ms`)];
  });
  return h("div", {}, chart(height, "From the end of the caller's speech to the first sound of the reply, by stage", ...grid, ...rows),
    legend([["wait", "until the end of the turn was sure"], ["queue", "queue"], ["encode", "encode"], ["first-token", "to the first token"], ["first-audio", "to the first audio"], ["mark", "stroke: the caller hears the bot"]]));
}
