// The page: buttons and keys in, the dialogue's turns out.
import { Sound } from "./audio.js";
import { Dialogue } from "./dialogue.js";
import { HeldMicrophone, OpenMicrophone, RATE_HZ, levelOf, pcm16Of } from "./turns.js";

const $ = (id) => document.getElementById(id);
const KEY = "ultravox-api-key";
const ANSWERING = "The bot answers";

let dialogue = null;
let sound = null;
let speaking = null; // the turn that the bot is in
const done = new Set();
const held = new HeldMicrophone();
let open = new OpenMicrophone();

const isOpenMode = () => document.querySelector("input[name=mode]:checked").value === "open";

function tell(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function show(who, text, turn) {
  $("nothing").hidden = true;
  const id = `${who}-${turn}`;
  let item = $(id);
  if (!item) {
    item = document.createElement("li");
    item.id = id;
    item.className = who;
    const name = document.createElement("b");
    name.textContent = who === "bot" ? "Bot" : "You";
    item.append(name, document.createElement("span"));
    $("turns").append(item);
    item.scrollIntoView({ block: "nearest" });
  }
  item.lastChild.textContent += text;
  return item;
}

function enable(isOn) {
  for (const id of ["talk", "typed", "send", "hang-up"]) $(id).disabled = !isOn;
  $("connect").disabled = isOn;
  $("instructions").disabled = isOn;
}

async function connect() {
  $("connect").disabled = true;
  tell("opening", "Opening the microphone");
  sound = new Sound(onBlock);
  try {
    await sound.open();
  } catch (error) {
    await end();
    return tell("error", `No microphone: ${error.message}`);
  }
  tell("opening", "Connecting");
  sessionStorage.setItem(KEY, $("key").value);
  dialogue = new Dialogue({
    ready: onReady,
    text: (message) => show("bot", message.text, message.turn),
    audio: onAudio,
    done: onDone,
    error: (message) => onError(message),
    closed: onClosed,
  });
  dialogue.open($("instructions").value, $("key").value.trim());
}

function onReady(message) {
  enable(true);
  const note = message.weights === "published" ? "" : ` (${message.weights} weights)`;
  tell("ready", `Connected to ${message.model}${note}`);
  const greeting = $("greeting").value.trim();
  if (greeting) speaking = dialogue.say(greeting);
  $("talk").focus();
}

function onAudio(message, pcm16) {
  if (message.turn !== speaking || !sound) return;
  sound.play(message.turn, pcm16, RATE_HZ, () => settleIfOver(message.turn));
}

function onDone(message) {
  done.add(message.turn);
  settleIfOver(message.turn);
}

// All of a reply was spoken and heard: it enters the history.
function settleIfOver(turn) {
  if (turn !== speaking || !done.has(turn) || sound?.isPlaying(turn)) return;
  sound?.forget(turn);
  done.delete(turn);
  speaking = null;
  dialogue?.settle(turn, null);
  if ($("status").textContent === ANSWERING) tell("ready", "Your turn");
}

function onError(message) {
  tell("error", message.message);
  if (message.turn === speaking) speaking = null;
}

async function onClosed(code) {
  if (!dialogue) return;
  const wasError = $("status").dataset.state === "error";
  const wasOpening = $("status").dataset.state === "opening";
  await end();
  if (wasOpening) tell("error", "Refused: an API key may be needed, under More");
  else if (!wasError) tell("idle", code === 1000 ? "Ended" : "The connection was lost");
}

async function end() {
  const [line, audio] = [dialogue, sound];
  dialogue = sound = speaking = null;
  done.clear();
  open = new OpenMicrophone();
  held.release();
  $("talk").setAttribute("aria-pressed", "false");
  $("level").value = 0;
  enable(false);
  line?.close();
  await audio?.close();
}

// The caller speaks: the bot stops, and only what was heard of it counts.
function interrupt() {
  if (speaking === null) return;
  const turn = speaking;
  speaking = null;
  done.delete(turn);
  const heardMs = sound.stop(turn);
  dialogue.settle(turn, heardMs);
}

function onBlock(block) {
  $("level").value = Math.min(1, levelOf(block) * 5);
  if (!dialogue || $("talk").disabled) return;
  if (!isOpenMode()) return held.feed(block);
  const { began, utterance } = open.feed(block);
  if (began) {
    interrupt();
    tell("hearing", "Listening");
    $("talk").setAttribute("aria-pressed", "true");
  }
  if (utterance) {
    $("talk").setAttribute("aria-pressed", "false");
    ask(utterance);
  }
}

function ask(blocks) {
  const pcm16 = pcm16Of(blocks);
  interrupt();
  speaking = dialogue.speak(pcm16);
  const seconds = (pcm16.byteLength / 2 / RATE_HZ).toFixed(1);
  show("caller", `spoke for ${seconds} s`, speaking);
  tell("ready", ANSWERING);
}

function press() {
  if (isOpenMode() || $("talk").disabled || held.blocks) return;
  held.press();
  interrupt();
  $("talk").setAttribute("aria-pressed", "true");
  tell("hearing", "Listening");
}

function release() {
  if (!held.blocks) return;
  const blocks = held.release();
  $("talk").setAttribute("aria-pressed", "false");
  if (blocks && dialogue) ask(blocks);
  else tell("ready", "Too short: hold it while you speak");
}

function onMode() {
  held.release();
  open = new OpenMicrophone();
  $("talk").textContent = isOpenMode() ? "Just speak" : "Hold to talk";
}

const isTyping = (target) => target.matches("input:not([type=radio]), textarea, summary");

$("connect").addEventListener("click", connect);
$("hang-up").addEventListener("click", async () => {
  await end();
  tell("idle", "Ended");
  $("connect").focus();
});
$("talk").addEventListener("pointerdown", (event) => {
  $("talk").setPointerCapture(event.pointerId);
  press();
});
for (const name of ["pointerup", "pointercancel"]) $("talk").addEventListener(name, release);
document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.code !== "Space" || isTyping(target)) return;
  if (target.matches("button:not(#talk), input[type=radio], a") || $("talk").disabled) return;
  event.preventDefault();
  if (!event.repeat) press();
});
document.addEventListener("keyup", (event) => {
  if (event.code !== "Space" || !held.blocks) return;
  event.preventDefault();
  release();
});
window.addEventListener("blur", release);
for (const choice of document.querySelectorAll("input[name=mode]")) {
  choice.addEventListener("change", onMode);
}
$("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("typed").value.trim();
  if (!text || !dialogue) return;
  $("typed").value = "";
  interrupt();
  speaking = dialogue.type(text);
  show("caller", text, speaking);
});
$("key").value = sessionStorage.getItem(KEY) ?? "";
