// Calls of the past: search and pages. The search stands in the address.

import { data } from "./api.js";
import { OUTCOMES, callTable, card, h, problem } from "./dom.js";

const PAGE_CALLS = 50;
const FIELDS = ["number", "lead", "campaign", "status", "text", "since", "until"];

export async function history(page, { query }) {
  const asked = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
  const { campaigns } = await data("calls/campaigns").catch(() => ({ campaigns: [] }));
  const list = h("div", {});
  const more = h("button", { class: "plain", type: "button", hidden: true }, "Older calls");
  const count = h("p", { class: "quiet", role: "status" });
  let shown = [];
  let cursor = "";

  async function load() {
    more.disabled = true;
    try {
      const found = await data("calls", { ...conditions(asked), limit: PAGE_CALLS, cursor });
      shown = shown.concat(found.calls);
      cursor = found.next_cursor ?? "";
      list.replaceChildren(shown.length ? callTable(shown) : h("p", { class: "quiet" }, found.note ?? "No call fits."));
      count.textContent = shown.length ? `${shown.length} calls shown${cursor ? ", there are older ones" : ", all that fit"}` : "";
    } catch (error) {
      list.replaceChildren(problem(error));
      cursor = "";
    }
    more.hidden = !cursor;
    more.disabled = false;
  }

  more.addEventListener("click", load);
  page.append(h("h1", {}, "Calls"), card("Search", filterForm(asked, campaigns)), card("Found", list, count, more));
  await load();
}

function conditions(asked) {
  const asMoment = (text) => (text ? new Date(text).getTime() / 1000 : "");
  return { ...asked, since: asMoment(asked.since), until: asMoment(asked.until) };
}

function filterForm(asked, campaigns) {
  const text = (name, label, more = {}) => h("label", {}, label, h("input", { name, value: asked[name], ...more }));
  const choice = (name, label, options) => h("label", {}, label, h("select", { name },
    options.map(([value, shown]) => h("option", { value, selected: value === asked[name] }, shown))));
  const form = h("form", { class: "filter", role: "search" },
    text("number", "Caller's number", { inputmode: "tel", placeholder: "whole, or last digits" }),
    text("lead", "VICIdial lead", { inputmode: "numeric" }),
    choice("campaign", "Campaign", [["", "all"], ...campaigns.map((name) => [name, name])]),
    choice("status", "Outcome", [["", "all"], ...Object.entries(OUTCOMES)]),
    text("text", "Words or id", { placeholder: "said by either; deliv*; call id" }),
    text("since", "From", { type: "datetime-local" }),
    text("until", "Until", { type: "datetime-local" }),
    h("div", { class: "actions" }, h("button", {}, "Search"), h("button", { class: "plain", type: "reset" }, "Clear")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = [...new FormData(form)].filter(([, value]) => value);
    const search = new URLSearchParams(values).toString();
    location.hash = search ? `#/calls?${search}` : "#/calls";
  });
  form.addEventListener("reset", () => {
    location.hash = "#/calls";
  });
  return form;
}
