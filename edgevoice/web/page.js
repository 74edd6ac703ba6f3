// The page: what is heard now, and all parts together.
//
//   /api/live (events) ──> meters, state; health, settings ──> figures.js; "utterance" ──> utterances.js
//   speech.js: this browser's microphone; text.js: what is typed; grammar.js: what can be said

import { $, QUIET_DBFS, about, ask, fixed, post, prose, quoted } from "./common.js";
import { showHealth, tellSettings } from "./figures.js";
import { offerGrammar, showGrammar } from "./grammar.js";
import { offerSpeech } from "./speech.js";
import { offerText } from "./text.js";
import { refresh } from "./utterances.js";

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

let muted = false;
let stream = null;
let wordsAt = 0;

function connect() {
  if (stream) return;
  stream = new EventSource("/api/live");
  stream.addEventListener("about", (event) => showAbout(JSON.parse(event.data)));
  stream.addEventListener("live", (event) => showLive(JSON.parse(event.data)));
  stream.addEventListener("health", (event) => showHealth(JSON.parse(event.data)));
  stream.addEventListener("settings", (event) => showSettings(JSON.parse(event.data)));
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
  Object.assign(about, told);
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

function showSettings(told) {
  showGrammar(told);
  tellSettings(told, about);
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
    await post("/api/mute", { muted: !muted });
  } catch (error) {
    $("state-words").textContent = String(error.message);
  }
});

offerSpeech();
offerText();
offerGrammar();

// A page that nobody sees costs nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
connect();
