// A recording: both sides' waveform and a player.

import { data } from "./api.js";
import { h, length, svg } from "./dom.js";

const POINTS = 600;
const HEIGHT = 90;

export async function recording(call, signal) {
  const path = `calls/${encodeURIComponent(call.call_id)}`;
  const shape = await data(`${path}/waveform`, { points: POINTS });
  const audio = h("audio", { controls: true, preload: "metadata", src: `${path}/recording` });
  const head = svg("line", { class: "head", x1: 0, x2: 0, y1: 0, y2: HEIGHT });
  const wave = svg("svg", { class: "wave", viewBox: `0 0 ${POINTS} ${HEIGHT}`, preserveAspectRatio: "none", height: HEIGHT, tabindex: 0, role: "slider", "aria-label": "Position in the recording", "aria-valuemin": 0, "aria-valuemax": Math.round(shape.duration_s), "aria-valuenow": 0 },
    side(shape.caller, HEIGHT * 0.25, "by-caller"), side(shape.bot, HEIGHT * 0.75, "by-bot"), head);

  function show() {
    const x = (audio.currentTime / shape.duration_s) * POINTS;
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
    wave.setAttribute("aria-valuenow", Math.round(audio.currentTime));
    wave.setAttribute("aria-valuetext", length(audio.currentTime));
  }
  const place = (seconds) => {
    audio.currentTime = Math.min(Math.max(0, seconds), shape.duration_s);
    show();
  };
  wave.addEventListener("click", (event) => {
    const box = wave.getBoundingClientRect();
    place(((event.clientX - box.left) / box.width) * shape.duration_s);
  });
  wave.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (step) place(audio.currentTime + step);
    else if (event.key === "Home") place(0);
    else if (event.key === "End") place(shape.duration_s);
    else if (event.key === " ") audio.paused ? audio.play() : audio.pause();
    else return;
    event.preventDefault();
  });
  audio.addEventListener("timeupdate", show);
  signal.addEventListener("abort", () => audio.pause());
  return {
    element: h("div", {}, wave, audio, h("ul", { class: "legend" },
      h("li", { class: "by-caller" }, "above: caller"), h("li", { class: "by-bot" }, "below: bot"), h("li", {}, h("a", { href: `${path}/recording`, download: "" }, "Download")))),
    seek: (seconds) => {
      place(seconds);
      audio.play();
    },
  };
}

function side(peaks, middle, kind) {
  const reach = HEIGHT * 0.22;
  const size = (peak) => Math.max(0.5, Math.sqrt(peak) * reach); // speech is far below full scale
  const upper = peaks.map((peak, x) => `${x},${(middle - size(peak)).toFixed(1)}`);
  const lower = peaks.map((peak, x) => `${x},${(middle + size(peak)).toFixed(1)}`).reverse();
  return svg("polygon", { class: kind, points: [...upper, ...lower].join(" ") });
}
