// Listening in: a call's sound over a WebSocket, played a moment behind.

const RATE_HZ = 8000;
const LEAD_S = 0.25; // rides out a network that is uneven
const MOST_S = 1.5; // behind; clocks drift, and nobody wants to hear the past
const REFUSED = 4404;

export function listen(callId, { onSound, onEnd }) {
  const context = new AudioContext();
  const address = new URL(`live/calls/${encodeURIComponent(callId)}/listen`, document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, ["listen"]);
  socket.binaryType = "arraybuffer";
  let nextAt = 0;
  let heardS = 0;

  socket.addEventListener("message", ({ data }) => {
    const pcm = new Int16Array(data);
    const length = pcm.length >> 1;
    if (!length) return;
    const buffer = context.createBuffer(2, length, RATE_HZ);
    for (const side of [0, 1]) {
      const samples = buffer.getChannelData(side);
      for (let n = 0; n < length; n += 1) samples[n] = pcm[2 * n + side] / 32768;
    }
    heardS += length / RATE_HZ;
    onSound(heardS);
    if (nextAt < context.currentTime) nextAt = context.currentTime + LEAD_S;
    if (nextAt > context.currentTime + MOST_S) return;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start(nextAt);
    nextAt += buffer.duration;
  });
  socket.addEventListener("close", ({ code, reason }) => {
    context.close();
    onEnd(code === REFUSED ? reason || "refused" : code === 1000 ? "The call is over." : "The connection was lost.");
  });
  return () => socket.close();
}
