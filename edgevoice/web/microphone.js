// In the browser's audio thread: sound in, blocks of 16-bit samples and their level out, some 30 a second.

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate * 0.032));
    this.filled = 0;
    this.sum = 0;
  }

  process([[channel]]) {
    for (const sample of channel ?? []) { // nothing while a microphone wakes up
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.sum += sample * sample;
      if (this.filled < this.block.length) continue;
      this.port.postMessage({ samples: this.block.slice().buffer, power: this.sum / this.filled });
      this.filled = this.sum = 0;
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
