// What an operator can do to a running call.

import { act, logIn, whoAmI } from "./api.js";
import { h } from "./dom.js";
import { listen } from "./listen.js";

// The controls of one call: the element, and how to show its newest state.
export function controls(callId, signal) {
  const status = h("span", { class: "quiet", role: "status" });
  const path = `live/calls/${encodeURIComponent(callId)}`;
  let targets = [];
  let stop = null;

  async function perform(name, body, done) {
    try {
      await act(`${path}/${name}`, body);
      status.textContent = done;
      status.className = "quiet";
    } catch (error) {
      status.textContent = error.message;
      status.className = "bad";
    }
  }

  const listenButton = button("Listen", async () => {
    if (stop) return stop();
    try {
      if (!whoAmI().may_act) await logIn();
    } catch {
      return;
    }
    status.textContent = "connecting";
    stop = listen(callId, {
      onSound: (seconds) => {
        listenButton.dataset.heard = seconds.toFixed(1);
        status.textContent = "left: caller, right: bot";
      },
      onEnd: (why) => {
        stop = null;
        listenButton.textContent = "Listen";
        listenButton.setAttribute("aria-pressed", "false");
        status.textContent = why;
      },
    });
    listenButton.textContent = "Stop listening";
    listenButton.setAttribute("aria-pressed", "true");
  });
  signal.addEventListener("abort", () => stop?.());

  const pauseButton = button("Pause recording", () => {
    const isPaused = pauseButton.dataset.state === "paused";
    perform(isPaused ? "resume_recording" : "pause_recording", {}, isPaused ? "recording goes on" : "silence is recorded");
  });

  const element = h("div", { class: "controls" },
    listenButton,
    button("Say", () => ask("Have the bot say", [h("label", {}, "Words", h("textarea", { name: "text", maxlength: 500, rows: 3, required: true }))], "Say it",
      (form) => perform("say", { text: form.get("text") }, "being said"))),
    button("Transfer", () => ask("Hand the caller on", [h("label", {}, "To", h("select", { name: "target" }, h("option", { value: "" }, "people, as the dialplan has it"), targets.map((name) => h("option", { value: name }, name))))], "Transfer",
      (form) => perform("transfer", { target: form.get("target") }, "being transferred"))),
    pauseButton,
    button("Hang up", () => ask("End this call at once?", [h("p", {}, "The caller hears nothing more from the bot.")], "Hang up",
      () => perform("hangup", {}, "ended"), "danger"), "danger"),
    status,
  );

  return {
    element,
    show(call) {
      targets = call.targets;
      pauseButton.hidden = !call.recording;
      pauseButton.dataset.state = call.recording;
      pauseButton.textContent = call.recording === "paused" ? "Resume recording" : "Pause recording";
    },
  };
}

export function button(text, onclick, kind = "") {
  return h("button", { type: "button", class: `small plain ${kind}`, onclick }, text);
}

// A dialog with a few fields; `then` gets the form when it is confirmed.
export function ask(title, fields, confirm, then, kind = "") {
  const name = `ask-${Date.now()}`;
  const form = h("form", { method: "dialog" }, h("h2", { id: name }, title), ...fields,
    h("div", { class: "actions" }, h("button", { value: "yes", class: kind }, confirm), h("button", { class: "plain", type: "button", onclick: () => dialog.close() }, "Cancel")));
  const dialog = h("dialog", { "aria-labelledby": name }, form);
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "yes") then(new FormData(form));
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}
