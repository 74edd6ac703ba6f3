// The page: what is heard now, what became of the last commands, and how edgevoice fares.
//
//   /api/live (events) ──> meters, state, health; "utterance" ──> /api/utterances ──> the list
//   speak: this browser's microphone ──> microphone.js ──> /api/microphone (WebSocket) ──> what became of it
//   a command is opened ──> /api/utterances/ID ──> why, timeline, candidates, sound
//
// What was said is put into the page as text only, never as HTML.

const QUIET_DBFS = -72; // an empty meter; below is no sound card
const LOUD_DBFS = -1; // peaks above are distorted
const RETRY_MS = 3000; // to connect, when the server has refused
const WORDS_MS = 1000; // between two values told to a screen reader

const STATES = {
  starting: "starting",
  serving: "no microphone: hears only what others send",
  listening: "listening",
  speech: "hearing speech",
  recognising: "recognising",
  muted: "muted",
  lost: "no microphone: waiting for it",
  gone: "no connection to edgevoice; trying again",
};
const ENDS = {
  pause: "a pause", silence: "silence", too_long: "it was too long",
  end_of_stream: "the end", overload: "others came",
};
const STAGES = {
  vad: "detector", mel: "spectrogram", encode: "encoder", search: "search", match: "meaning",
  explain: "explain", total: "together",
};

const $ = (id) => document.getElementById(id);
let about = { records: { keep: 0, audio: false }, speech_threshold: 0.5 };
let muted = false;
let stream = null;
let wordsAt = 0;

/** An element with attributes and children; texts become text. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "rect", "line", "text", "title"].includes(name);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text with `commands` marked. */
function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

const quoted = (text) => `“${text.trim()}”`;
const slots = (values) => Object.entries(values).map(([name, value]) => `${name} ${value}`).join(", ");
const fixed = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

// ---- what is heard now ----

function connect() {
  if (stream) return;
  stream = new EventSource("/api/live");
  stream.addEventListener("about", (event) => showAbout(JSON.parse(event.data)));
  stream.addEventListener("live", (event) => showLive(JSON.parse(event.data)));
  stream.addEventListener("health", (event) => showHealth(JSON.parse(event.data)));
  stream.addEventListener("utterance", refresh);
  stream.addEventListener("error", () => {
    showState("gone");
    if (stream?.readyState !== EventSource.CLOSED) return; // it tries again by itself
    disconnect();
    setTimeout(() => document.hidden || ask("/api/utterances").catch(() => {}).then(connect), RETRY_MS);
  });
}

function disconnect() {
  stream?.close();
  stream = null;
}

function showAbout(told) {
  about = told;
  $("site").textContent = told.site;
  $("leave").hidden = !told.password;
  $("speech").querySelector(".mark").style.setProperty("--place", told.speech_threshold);
  const note = $("records");
  note.hidden = told.records.keep > 0 && told.records.audio;
  note.replaceChildren(...prose(
    told.records.keep === 0
      ? "Only commands of this run are shown, without their sound. With `records.keep: 200` in the configuration, the last ones are kept, to be heard and run again."
      : "The sound of commands is not kept. With `records.audio: true` in the configuration it is.",
  ));
  refresh();
}

function showState(state) {
  if ($("state").dataset.state === state) return;
  $("state").dataset.state = state;
  $("state-words").textContent = STATES[state] ?? state;
}

function showLive(now) {
  muted = now.muted;
  showState(now.muted && now.state === "listening" ? "muted" : now.state);
  const mute = $("mute");
  mute.setAttribute("aria-pressed", now.muted);
  mute.textContent = now.muted ? "Muted: listen again" : "Mute";
  $("partial").textContent = now.partial ? `${quoted(now.partial)} ?` : now.state === "speech" ? "…" : "";
  const place = (dbfs) => (dbfs === null ? 0 : Math.min(1, Math.max(0, 1 - dbfs / QUIET_DBFS)));
  const level = $("level");
  level.querySelector(".fill").style.setProperty("--value", place(now.level_dbfs));
  level.querySelector(".peak").style.setProperty("--place", place(now.peak_dbfs));
  level.classList.toggle("nothing", now.level_dbfs === null);
  $("speech").querySelector(".fill").style.setProperty("--value", now.speech ?? 0);
  if (performance.now() - wordsAt < WORDS_MS && now.level_dbfs !== null) return;
  wordsAt = performance.now();
  const loud = now.peak_dbfs !== null && now.peak_dbfs > LOUD_DBFS;
  const words = now.level_dbfs === null ? "" : loud ? "too loud" : now.level_dbfs <= QUIET_DBFS ? "silent" : `${fixed(now.level_dbfs)} dB`;
  $("level-value").textContent = words;
  level.setAttribute("aria-valuenow", Math.max(QUIET_DBFS, Math.round(now.level_dbfs ?? QUIET_DBFS)));
  level.setAttribute("aria-valuetext", words || "nothing is heard");
  $("speech-value").textContent = now.speech === null ? "" : `${fixed(now.speech * 100)} %`;
  $("speech").setAttribute("aria-valuenow", now.speech ?? 0);
}

$("mute").addEventListener("click", async () => {
  try {
    await ask("/api/mute", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ muted: !muted }),
    });
  } catch (error) {
    $("state-words").textContent = String(error.message);
  }
});

// ---- this browser's microphone ----

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

class Speech {
  /** Ask for the microphone, and send what it hears, until end() or until the server has done. */
  async begin() {
    this.show("waiting for the microphone");
    $("speak-became").replaceChildren();
    $("speak").setAttribute("aria-pressed", "true");
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
    address.protocol = location.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    const node = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data: { samples, power } }) => {
      showOwn(10 * Math.log10(power));
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

  take({ state, result }) {
    if (state === "listening" && !this.ending) this.show("Speak now");
    if (!result) return;
    $("speak-became").replaceChildren(...headline(result));
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
  }

  /** Let go of the microphone. */
  rest() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.context?.state !== "closed") this.context?.close();
    showOwn(-Infinity);
    $("speak").setAttribute("aria-pressed", "false");
    $("speak").textContent = "Speak";
  }

  show(words) {
    $("speak-state").textContent = words;
    $("speak").textContent = this.ending ? "Speak" : "Stop";
  }
}

function showOwn(dbfs) {
  const place = Math.min(1, Math.max(0, 1 - dbfs / QUIET_DBFS));
  $("own").querySelector(".fill").style.setProperty("--value", place);
  $("own").setAttribute("aria-valuenow", Math.round(Math.max(QUIET_DBFS, Math.min(0, dbfs))));
}

function push() {
  if (speaking) return speaking.end();
  pushedAt = performance.now();
  speaking = new Speech();
  speaking.held = true;
  speaking.begin();
}

function letGo() {
  if (!speaking?.held) return;
  speaking.held = false;
  if (performance.now() - pushedAt > HOLD_MS) speaking.end();
}

function offerSpeech() {
  const able = window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode;
  $("speak").disabled = !able;
  $("speak-why-not").hidden = able;
  $("speak-why-not").replaceChildren(...prose(window.isSecureContext ? "This browser gives pages no microphone." : INSECURE));
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

offerSpeech();

// ---- the last commands ----

/** Take new ones to the top of the list, where those that are there stay as they are. */
async function refresh() {
  const { utterances, more } = await ask("/api/utterances").catch(() => ({ utterances: [] }));
  const list = $("utterances");
  const empty = list.children.length === 0;
  for (const each of [...utterances].reverse()) {
    if (!document.getElementById(each.id)) list.prepend(entry(each));
  }
  if (empty) $("older").hidden = !more;
  if (utterances.length) $("last").replaceChildren(...headline(utterances[0]));
  if (!list.children.length) list.append(make("li", { id: "none", class: "note" }, "Nothing was said yet."));
  else if (list.children.length > 1) $("none")?.remove();
}

$("older").addEventListener("click", async () => {
  const list = $("utterances");
  const { utterances, more } = await ask(`/api/utterances?before=${list.lastElementChild.id}`);
  list.append(...utterances.map(entry));
  $("older").hidden = !more;
  document.getElementById(utterances[0]?.id)?.querySelector("summary").focus();
});

function headline(told) {
  return told.accepted
    ? [make("strong", {}, quoted(told.text)), make("p", { class: "good" }, make("span", { class: "became" }, became(told)))]
    : [
      make("strong", {}, `Refused: ${told.words?.short ?? told.reason}`),
      make("p", {}, told.heard ? `It sounds like ${quoted(told.heard)} ` : "", prose(told.words ? `${told.words.meaning} ${told.words.remedy}` : "")),
    ];
}

const became = (told) => `→ ${told.intent}${Object.keys(told.slots).length ? ` (${slots(told.slots)})` : ""}`;

function entry(told) {
  const at = new Date(told.time);
  const today = at.toDateString() === new Date().toDateString();
  const sure = `confidence ${fixed(told.confidence, 2)}`;
  const soon = told.latency_ms === null ? "" : `, ${fixed(told.latency_ms)} ms after the last word`;
  const summary = make(
    "summary", { class: told.accepted ? "good" : "refused" },
    make("span", { class: "badge", "aria-hidden": "true" }, told.accepted ? "✓" : "✗"),
    make("span", { class: "said" }, told.accepted ? quoted(told.text) : told.heard ? quoted(told.heard) : "(no words)"),
    make("time", { datetime: told.time }, today ? at.toLocaleTimeString() : at.toLocaleString()),
    told.accepted
      ? make("span", { class: "became" }, became(told))
      : make("span", { class: "why" }, make("span", { class: "reason" }, `refused: ${told.words?.short ?? told.reason}`),
        told.text ? `; nearest is ${quoted(told.text)}` : ""),
    make("span", { class: "why" }, sure + soon + meant(told.label)),
  );
  const body = make("div", { class: "details" });
  const details = make("details", {}, summary, body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.hasChildNodes()) open(told.id, body);
  });
  return make("li", { id: told.id }, details);
}

const meant = (label) => (label ? `; meant: ${label.intent ? `${label.intent} ${slots(label.slots)}` : "no command"}` : "");

async function open(id, body) {
  body.append(make("p", { class: "note" }, "…"));
  try {
    const all = await ask(`/api/utterances/${id}`);
    body.replaceChildren();
    body.append(...why(all), ...sound(all), timeline(all, body.clientWidth || 600), ...tries(all), ...candidates(all), ...timings(all), ...basis(all));
  } catch (error) {
    body.replaceChildren(make("p", { class: "note" }, error.message));
  }
}

function why(all) {
  if (!all.words) return [];
  return [make("div", { class: "advice" },
    make("p", {}, prose(all.words.meaning)),
    make("p", {}, make("strong", {}, "What to do: "), prose(all.words.remedy)))];
}

function sound(all) {
  if (all.sound) {
    return [make("audio", { controls: "", preload: "none", src: `/api/utterances/${all.id}/sound`, "aria-label": "What was heard" })];
  }
  return [make("p", { class: "note" }, "Its sound is not kept.")];
}

/** Level and probability of speech over time, and where it was recognised. */
function timeline(all, width) {
  const { track, utterance } = all;
  const rate = 16000; // of positions in the stream, Hz
  const count = track.level_dbfs.length;
  const length = Math.max(count * track.frame_s, 0.1);
  const top = 18, bottom = 112, height = 132;
  const x = (seconds) => (width * (seconds - track.start_s)) / length;
  const y = (share) => bottom - (bottom - top) * Math.min(1, Math.max(0, share));
  const centre = (i) => x(track.start_s + (i + 0.5) * track.frame_s).toFixed(1);
  const level = track.level_dbfs.map((dbfs, i) => `L${centre(i)} ${y(1 - dbfs / QUIET_DBFS).toFixed(1)}`).join("");
  const speech = track.speech.map((share, i) => `${i ? "L" : "M"}${centre(i)} ${y(share).toFixed(1)}`).join("");
  const [begin, end] = [utterance.speech_start_samples / rate, utterance.speech_end_samples / rate];
  const drawing = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    `Level and probability of speech over ${fixed(length, 1)} seconds; speech from ${fixed(begin - track.start_s, 1)} to ${fixed(end - track.start_s, 1)}` });
  drawing.append(
    make("rect", { class: "spoken", x: x(begin).toFixed(1), y: top, width: Math.max(0, x(end) - x(begin)).toFixed(1), height: bottom - top }),
    make("path", { class: "level-area", d: `M0 ${bottom}${level}L${width} ${bottom}Z` }),
    make("line", { class: "threshold", x1: 0, x2: width, y1: y(about.speech_threshold), y2: y(about.speech_threshold) }),
    make("path", { class: "speech-line", d: speech }),
    make("line", { class: "axis", x1: 0, x2: width, y1: bottom, y2: bottom }),
  );
  const step = length > 8 ? 2 : length > 3 ? 1 : 0.5;
  for (let at = 0; at < length - step / 4; at += step) {
    drawing.append(make("text", { x: (width * at) / length + 2, y: height - 6 }, `${at} s`));
  }
  all.recognitions.forEach((each, i) => {
    const place = Math.min(width - 1, x(each.until_s));
    drawing.append(
      make("line", { class: "try", x1: place, x2: place, y1: top, y2: bottom }),
      make("text", { class: "try-number", x: place, y: 12, "text-anchor": place > width - 8 ? "end" : "middle" }, String(i + 1)),
    );
  });
  return make("figure", {}, make("figcaption", {},
    make("i", { class: "level-key" }, "level"), ", ", make("i", { class: "speech-key" }, "probability of speech"),
    " and when it counts (dashed), speech (grey), ", make("i", { class: "try-key" }, "recognitions"), " (numbers)"), drawing);
}

function tries(all) {
  if (!all.recognitions.length) return [];
  const { start_s: start } = all.track;
  return [make("h3", {}, "Recognitions"), table(["#", "heard until", "because of", "became", "sentence", "ms"], [0, 5],
    all.recognitions.map((each, i) => [
      String(i + 1), `${fixed(each.until_s - start, 2)} s`, ENDS[each.at] ?? each.at,
      each.outcome === "cancelled" ? "nothing: speech went on" : each.outcome,
      each.text ?? "", fixed(each.spent_ms),
    ]))];
}

function candidates(all) {
  const { meanings, evidence, confidence, reason } = all.decision;
  const parts = [];
  if (meanings.length) {
    parts.push(make("h3", {}, "Sentences considered, best first"),
      table(["score", "sentence", "intent", "slots"], [0],
        meanings.map((each) => [fixed(each.score, 2), each.text, each.intent, slots(each.slots)])));
  }
  parts.push(make("h3", {}, `Confidence ${fixed(confidence, 3)}; ${fixed(all.options.min_confidence, 2)} is asked for${reason ? `; refused: ${reason}` : ""}`));
  if (evidence) {
    parts.push(table(Object.keys(evidence).map((name) => name.replaceAll("_", " ")),
      Object.keys(evidence).map((_, i) => i), [Object.values(evidence).map((value) => fixed(value, 2))]),
    make("p", { class: "note" }, "What it was made of, in nats: nearer to 0 is better."));
  }
  return parts;
}

function timings(all) {
  const { total, ...stages } = all.result.timings_ms;
  if (!total) return [];
  const bar = (ms) => {
    const element = make("span", { class: "bar" });
    element.style.setProperty("--value", ms / total);
    return element;
  };
  return [make("h3", {}, `Computed in ${fixed(total)} ms`), make("ul", { class: "parts" },
    Object.entries(stages).map(([name, ms]) => make("li", {}, make("span", {}, STAGES[name] ?? name), bar(ms), make("span", { class: "number" }, `${fixed(ms, 1)} ms`))))];
}

function basis(all) {
  const { grammar, model, options, versions } = all;
  return [make("h3", {}, "Decided by"), make("p", { class: "note" },
    `grammar ${grammar.file}, model ${model.name}, mode ${options.mode}, threads ${options.threads}; edgevoice ${versions.edgevoice}. `,
    make("a", { href: `/api/utterances/${all.id}` }, "All that is known, as JSON"))];
}

function table(heads, numbers, rows) {
  const cell = (name) => (text, i) => make(name, { class: numbers.includes(i) ? "number" : null, scope: name === "th" ? "col" : null }, text);
  return make("div", { class: "scroll", tabindex: "0" }, make("table", { class: heads.length > 3 ? "wide" : null },
    make("thead", {}, make("tr", {}, heads.map(cell("th")))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))));
}

// ---- how it fares ----

function showHealth(told) {
  const refused = Object.entries(told.utterances).filter(([name, count]) => name !== "accepted" && count);
  const lost = told.audio.overflows + told.audio.card_overflows + told.audio.gaps;
  const figures = {
    "understood": String(told.utterances.accepted),
    "refused": refused.length ? refused.map(([name, count]) => `${count} ${name}`).join(", ") : "0",
    "answer after the last word": told.latency_ms.p50 === null ? "–" : `${fixed(told.latency_ms.p50)} ms; 95 % in ${fixed(told.latency_ms.p95)}`,
    "running for": duration(told.uptime_s),
    "memory": told.memory_bytes === null ? "–" : `${fixed(told.memory_bytes / 1e6)} MB`,
    "processor": told.temperature_c === null ? "no sensor" : `${fixed(told.temperature_c)} °C${told.throttled?.now ? ", slowed down" : ""}`,
    "sound lost": lost || told.audio.losses ? `${lost} times; microphone gone ${told.audio.losses} times` : "never",
    "waiting": `${told.queues?.utterances ?? 0} commands, ${told.queues?.results ?? 0} results`,
    "broker": !told.mqtt ? "none" : told.mqtt.version ? `MQTT ${told.mqtt.version}, ${told.mqtt.reconnects} reconnects` : "no connection",
    "records": told.records ? `${told.records.kept} kept, ${told.records.lost} lost` : "off",
  };
  $("health").replaceChildren(...Object.entries(figures).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

// A page that nobody sees costs nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
connect();
