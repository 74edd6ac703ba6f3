// This browser's microphone: to speak as into that of the house, or to try a sentence out.
//
//   getUserMedia ──> microphone.js (audio thread) ──> /api/microphone (WebSocket) ──> what became of it

import { $, QUIET_DBFS, headline, prose } from "./common.js";

const HOLD_MS = 400; // who lets go sooner has pushed it to speak afterwards
const REFUSED = {
  NotAllowedError: "This browser may not use its microphone: allow it in the browser's settings for this page, and in those of the system.",
  NotFoundError: "This telephone or computer has no microphone.",
  NotReadableError: "The microphone is in use by another program.",
};
const INSECURE = "Browsers let a page use the microphone only over https or from their own machine. Open this page on the "
  + "machine where edgevoice runs, as `localhost`; or come through SSH, "
  + `\`ssh -L 8490:127.0.0.1:${location.port || 80} USER@${location.hostname}\`, and open \`localhost:8490\`; or put a server with TLS before edgevoice.`;
let speaking = null; // what is open, from the push of the button on
let pushedAt = 0;

/** One push of a button, to which `view` belongs; with `trial`, a sentence, what is said is no command. */
export class Speech {
  constructor(view, trial = null) {
    this.view = view;
    this.trial = trial;
  }

  /** Ask for the microphone, and send what it hears, until end() or until the server has done. */
  async begin() {
    this.show("waiting for the microphone");
    this.view.begins();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        // Untouched: what makes a voice pleasant for people makes it harder to recognise.
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
      if (this.over) return this.close();
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("/microphone.js");
      if (this.over) return this.close();
      this.connect();
    } catch (error) {
      this.show(REFUSED[error.name] ?? `The microphone cannot be used: ${error.message}`);
      this.close();
    }
  }

  connect() {
    const { sampleRate } = this.context;
    const address = new URL(`/api/microphone?rate=${sampleRate}`, location);
    if (this.trial !== null) address.searchParams.set("trial", this.trial);
    address.protocol = location.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    const node = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data: { samples, power } }) => {
      this.view.level(10 * Math.log10(power));
      if (this.ending || this.socket.readyState !== WebSocket.OPEN) return;
      if (this.socket.bufferedAmount > 4 * sampleRate) return this.stop("The connection is too slow for sound.");
      this.socket.send(samples);
    };
    this.socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    this.socket.onclose = ({ code, reason }) => {
      if (!this.over) this.show(code === 1000 ? "" : code === 1006 ? "edgevoice cannot be reached" : reason || `ended (${code})`);
      this.close();
    };
    this.context.createMediaStreamSource(this.stream).connect(node);
  }

  take(told) {
    if (told.state === "listening" && !this.ending) this.show("Speak now");
    if (!told.result) return;
    this.view.became(told);
    if (!this.held) this.end();
  }

  /** Send no more; what was said is still answered. */
  end() {
    if (this.ending) return;
    this.ending = true;
    if (this.socket?.readyState !== WebSocket.OPEN) return this.stop("");
    this.socket.send(new ArrayBuffer(0));
    this.rest();
    this.show("…");
  }

  stop(words) {
    this.show(words);
    this.close();
  }

  close() {
    this.over = this.ending = true;
    this.socket?.close();
    this.rest();
    if (speaking === this) speaking = null;
    this.view.ends();
  }

  /** Let go of the microphone. */
  rest() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.context?.state !== "closed") this.context?.close();
    this.view.level(-Infinity);
    this.view.rests();
  }

  show(words) {
    this.view.show(words, this.ending);
  }
}

/** Whether this browser gives its microphone, and why not. */
export const canSpeak = () => Boolean(window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);
export const whyNot = () => (window.isSecureContext ? "This browser gives pages no microphone." : INSECURE);

const view = {
  begins() {
    $("speak-became").replaceChildren();
    $("speak").setAttribute("aria-pressed", "true");
  },
  level: showOwn,
  became: ({ result }) => $("speak-became").replaceChildren(...headline(result)),
  rests() {
    $("speak").setAttribute("aria-pressed", "false");
    $("speak").textContent = "Speak";
  },
  show(words, ending) {
    $("speak-state").textContent = words;
    $("speak").textContent = ending ? "Speak" : "Stop";
  },
  ends() {},
};

function showOwn(dbfs) {
  const place = Math.min(1, Math.max(0, 1 - dbfs / QUIET_DBFS));
  $("own").querySelector(".fill").style.setProperty("--value", place);
  $("own").setAttribute("aria-valuenow", Math.round(Math.max(QUIET_DBFS, Math.min(0, dbfs))));
}

function push() {
  if (speaking) return speaking.end();
  pushedAt = performance.now();
  speaking = new Speech(view);
  speaking.held = true;
  speaking.begin();
}

function letGo() {
  if (!speaking?.held) return;
  speaking.held = false;
  if (performance.now() - pushedAt > HOLD_MS) speaking.end();
}

export function offerSpeech() {
  const able = canSpeak();
  $("speak").disabled = !able;
  $("speak-why-not").hidden = able;
  $("speak-why-not").replaceChildren(...prose(whyNot()));
  const button = $("speak");
  button.addEventListener("pointerdown", (event) => event.button === 0 && push());
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long push on a telephone
  addEventListener("pointerup", letGo);
  addEventListener("pointercancel", letGo);
  button.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (!event.repeat) push();
  });
  addEventListener("keyup", (event) => (event.key === " " || event.key === "Enter") && letGo());
  // A screen reader or a voice pushes without pointer or key.
  button.addEventListener("click", (event) => {
    if (event.detail !== 0) return;
    push();
    letGo();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && speaking?.stop(""));
  addEventListener("pagehide", () => speaking?.stop(""));
}

