// Pure: blocks of microphone samples -> utterances.  Time is counted in samples.
export const RATE_HZ = 16000;
const PRE_ROLL_S = 0.3; // what was said before it was noticed
const END_SILENCE_S = 0.8;
const MIN_SPEECH_S = 0.2;
const MAX_UTTERANCE_S = 30;
const MARGIN = 3; // speech is this much louder than the room
const LEAST_LEVEL = 0.008;

export function levelOf(block) {
  let power = 0;
  for (const sample of block) power += sample * sample;
  return Math.sqrt(power / block.length);
}

// An open microphone: energy against a floor that follows the room.
export class OpenMicrophone {
  constructor() {
    this.floor = 0.005;
    this.blocks = [];
    this.samples = 0;
    this.loudSamples = 0;
    this.quietSamples = 0;
    this.isSpeaking = false;
  }

  // Returns {began, utterance}: whether speech began now; blocks of one that ended.
  feed(block) {
    const level = levelOf(block);
    const isLoud = level > Math.max(LEAST_LEVEL, this.floor * MARGIN);
    // Down at once, up in about ten seconds, so that speech isn't taken for the room.
    this.floor = level < this.floor
      ? level * 0.2 + this.floor * 0.8
      : this.floor + (level - this.floor) * 0.003;
    this.blocks.push(block);
    this.samples += block.length;
    if (isLoud) {
      this.loudSamples += block.length;
      this.quietSamples = 0;
    } else {
      this.quietSamples += block.length;
    }
    if (!this.isSpeaking) return { began: this.#begin(isLoud), utterance: null };
    const isOver = this.quietSamples >= END_SILENCE_S * RATE_HZ
      || this.samples >= MAX_UTTERANCE_S * RATE_HZ;
    return { began: false, utterance: isOver ? this.#end() : null };
  }

  #begin(isLoud) {
    if (!isLoud && this.quietSamples > PRE_ROLL_S * RATE_HZ) this.loudSamples = 0;
    if (this.loudSamples >= MIN_SPEECH_S * RATE_HZ) {
      this.isSpeaking = true;
      return true;
    }
    const most = (PRE_ROLL_S + 2 * MIN_SPEECH_S) * RATE_HZ;
    while (this.samples > most) this.samples -= this.blocks.shift().length;
    return false;
  }

  #end() {
    const utterance = this.blocks;
    this.blocks = [];
    this.samples = this.loudSamples = this.quietSamples = 0;
    this.isSpeaking = false;
    return utterance;
  }
}

// The button: what comes while it is held.
export class HeldMicrophone {
  constructor() {
    this.blocks = null;
  }

  press() {
    this.blocks = [];
  }

  feed(block) {
    if (!this.blocks) return;
    this.blocks.push(block);
    if (this.blocks.length * block.length > MAX_UTTERANCE_S * RATE_HZ) this.blocks.shift();
  }

  // The blocks, or null when it was let go too soon to have said anything.
  release() {
    const blocks = this.blocks;
    this.blocks = null;
    if (!blocks) return null;
    const samples = blocks.reduce((sum, block) => sum + block.length, 0);
    return samples >= MIN_SPEECH_S * RATE_HZ ? blocks : null;
  }
}

export function pcm16Of(blocks) {
  const samples = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(2 * samples));
  let at = 0;
  for (const block of blocks) {
    for (const sample of block) {
      const clipped = Math.max(-1, Math.min(1, sample));
      view.setInt16(at, Math.round(clipped * 32767), true);
      at += 2;
    }
  }
  return view.buffer;
}
