// Which page is shown; each gets the main element and says how to stop it.

import { data, logIn, logOut, onSession, refreshSession } from "./api.js";
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
function watchLogin() {
  const button = document.getElementById("login");
  onSession(({ name }) => {
    button.textContent = name ? `Log out ${name}` : "Log in";
    button.dataset.name = name;
  });
  button.addEventListener("click", () => (button.dataset.name ? logOut() : logIn().catch(() => {})));
}

window.addEventListener("hashchange", show);
await refreshSession().catch(() => {}); // the page itself says what is wrong
watchLogin();
show();
watchState();
