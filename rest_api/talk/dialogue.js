// The client's side of /chat/live; the server's documentation has the message table.
import { RATE_HZ } from "./turns.js";

// A protocol's name takes letters, digits and few signs; a key may have any.
function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export class Dialogue {
  // `on`: {ready, text, audio, done, error, closed}
  constructor(on) {
    this.on = on;
    this.turn = -1;
    this.awaited = null; // the message whose audio comes next
  }

  open(instructions, key) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = key ? ["chat-live", `key64.${base64url(key)}`] : ["chat-live"];
    this.socket = new WebSocket(`${scheme}//${location.host}/chat/live`, protocols);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.#send({
      type: "start",
      call_id: `talk-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
      instructions,
      rate_hz: RATE_HZ,
    });
    this.socket.onmessage = (event) => this.#receive(event.data);
    this.socket.onclose = (event) => this.on.closed(event.code);
  }

  say(text) {
    this.#send({ type: "say", turn: ++this.turn, text });
    return this.turn;
  }

  type(text) {
    this.#send({ type: "text", turn: ++this.turn, text });
    return this.turn;
  }

  speak(pcm16) {
    this.#send({
      type: "utterance", turn: ++this.turn, n_bytes: pcm16.byteLength, rate_hz: RATE_HZ,
    });
    this.socket.send(pcm16);
    return this.turn;
  }

  cancel(turn) {
    this.#send({ type: "cancel", turn });
  }

  settle(turn, heardMs) {
    this.#send({ type: "settle", turn, heard_ms: heardMs });
  }

  close() {
    this.#send({ type: "end" });
    this.socket.close();
  }

  #send(message) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
    }
  }

  #receive(data) {
    if (typeof data !== "string") {
      const message = this.awaited;
      this.awaited = null;
      if (message) this.on.audio(message, data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "audio") this.awaited = message;
    else this.on[message.type]?.(message);
  }
}
