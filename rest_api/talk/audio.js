// The microphone in and the bot's speech out, in one audio context at 16 kHz.
import { RATE_HZ } from "./turns.js";

const FIRST_DELAY_S = 0.05; // so that the next piece is there when one ends

export class Sound {
  constructor(onBlock) {
    this.onBlock = onBlock;
    this.playing = new Map(); // turn -> {began, until, sources}
    this.nextS = 0;
  }

  async open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("browsers give it to pages over HTTPS or on localhost only");
    }
    this.context = new AudioContext({ sampleRate: RATE_HZ });
    await this.context.audioWorklet.addModule("/console/talk/microphone.js");
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    this.source = this.context.createMediaStreamSource(this.stream);
    this.worklet = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
    this.worklet.port.onmessage = (event) => this.onBlock(event.data);
    this.source.connect(this.worklet);
    await this.context.resume();
  }

  async close() {
    for (const turn of [...this.playing.keys()]) this.stop(turn);
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.worklet) this.worklet.port.onmessage = null;
    this.source?.disconnect();
    await this.context?.close();
    this.context = null;
  }

  play(turn, pcm16, rateHz, onEnd) {
    const samples = new Int16Array(pcm16);
    const buffer = this.context.createBuffer(1, samples.length, rateHz);
    const wave = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) wave[i] = samples[i] / 32768;
    const node = this.context.createBufferSource();
    node.buffer = buffer;
    node.connect(this.context.destination);
    const now = this.context.currentTime;
    const startS = Math.max(this.nextS, now + FIRST_DELAY_S);
    const speech = this.playing.get(turn) ?? { began: startS, until: 0, sources: new Set() };
    this.playing.set(turn, speech);
    speech.sources.add(node);
    speech.until = this.nextS = startS + buffer.duration;
    node.onended = () => {
      speech.sources.delete(node);
      if (!speech.sources.size) onEnd?.();
    };
    node.start(startS);
  }

  isPlaying(turn) {
    return Boolean(this.playing.get(turn)?.sources.size);
  }

  // Silence it now; how many milliseconds of it were heard.
  stop(turn) {
    const speech = this.playing.get(turn);
    this.playing.delete(turn);
    if (!speech || !this.context) return 0;
    const now = this.context.currentTime;
    const heardS = Math.max(0, Math.min(now, speech.until) - speech.began);
    for (const node of speech.sources) {
      node.onended = null;
      node.stop();
    }
    this.nextS = 0;
    return Math.round(heardS * 1000);
  }

  forget(turn) {
    this.playing.delete(turn);
  }
}
