// Which page is shown; each gets the main element and says how to stop it.

import { data } from "./api.js";
import { call } from "./call.js";
import { problem } from "./dom.js";
import { figures } from "./figures.js";
import { history } from "./history.js";
import { live } from "./live.js";

const PAGES = { live, calls: history, call, figures };
const TITLES = { live: "Live", calls: "Calls", call: "Call", figures: "Figures" };
const TONES = { healthy: "good", degraded: "warn", unhealthy: "bad" };
const STATE_INTERVAL_MS = 5000;

let current = new AbortController();

async function show() {
  current.abort();
  const ours = (current = new AbortController());
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/");
  const name = first in PAGES ? first : "live";
  document.title = `${TITLES[name]} – phone bot`;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.getAttribute("href") === `#/${name === "call" ? "calls" : name}`;
    isHere ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  const main = document.getElementById("main");
  const page = document.createElement("div");
  try {
    await PAGES[name](page, { argument: decodeURIComponent(rest.join("/")), query: new URLSearchParams(search), signal: ours.signal });
  } catch (error) {
    page.replaceChildren(problem(error));
  }
  if (!ours.signal.aborted) main.replaceChildren(page);
}

async function watchState() {
  const badge = document.getElementById("state");
  for (;;) {
    let status = "not reachable";
    try {
      status = (await data("health")).status;
    } catch {
      // shown as what it is
    }
    badge.textContent = status;
    badge.className = `badge ${TONES[status] ?? "bad"}`;
    await new Promise((resolve) => setTimeout(resolve, STATE_INTERVAL_MS));
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment belongs to the pages
  document.getElementById("main").focus();
});
window.addEventListener("hashchange", show);
show();
watchState();
