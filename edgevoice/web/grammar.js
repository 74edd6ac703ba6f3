// What can be said: sentences to say and try out, and the file of the grammar, checked while one types.
//
//   /api/grammar ──> the text ── a pause in typing ──> /api/grammar/check ──> what is wrong, at its line
//   a sentence ── say it ──> /api/trial or this browser's microphone ──> whether it was understood
//   save ──> /api/grammar ──> written, and in use

import { $, ask, became, headline, make, post, prose, quoted, slots } from "./common.js";
import { Speech, canSpeak } from "./speech.js";
import { reading } from "./text.js";

const PAUSE_MS = 400; // in typing, before the text is looked at
const SAMPLES = 6;
const LINE_REM = 1.375; // height of a line of the text, as in page.css

let loaded = null; // as it was read: text, digest, read_only
let seen = null; // which grammar was in use when it was read
let checking = null; // the text that is looked at now; null: none
let due = null; // the timer of the next look
let mayEdit = false; // whether the page may change the grammar at all
let saving = false;
let trying = null; // what ends the trial that is on

// ---- in use ----

/** Take which grammar is in use; another one has other sentences, and another file. */
export function showGrammar({ grammar, edit }) {
  mayEdit = edit;
  if (!grammar) return;
  const error = $("grammar-error");
  error.hidden = !grammar.error;
  error.textContent = grammar.error ? `The file cannot be used as it is now, and the grammar before goes on: ${grammar.error}` : "";
  const now = `${grammar.file} ${grammar.loaded}`;
  if (now === seen) return;
  seen = now;
  const lists = grammar.lists.length ? ` Values of ${grammar.lists.join(", ")} came over MQTT.` : "";
  const only = grammar.only ? ` Only ${grammar.only.join(", ")} can be said now.` : "";
  $("grammar-about").textContent = `${grammar.file}, ${grammar.intents.length} intents, in use since ${new Date(grammar.loaded).toLocaleTimeString()}.${lists}${only}`;
  if (saving) return;
  moreSamples();
  if (loaded) compare();
}

/** Show the file again if it is another one now; what somebody writes here is left to them. */
async function compare() {
  const told = await ask("/api/grammar").catch(() => loaded);
  if (told.digest === loaded.digest && told.path === loaded.path) return;
  if (changed()) tell("The file is another one now. Keep a copy of your text, and undo your changes to see it.");
  else show(told);
}

const changed = () => loaded?.text !== null && $("grammar-text").value !== loaded?.text;

// ---- sentences to say ----

async function moreSamples() {
  const list = $("samples");
  try {
    const told = await post("/api/grammar/check", { samples: SAMPLES, seed: Math.floor(Math.random() * 2 ** 32) });
    if (told.samples) list.replaceChildren(...told.samples.map(sample));
    else list.replaceChildren(make("li", { class: "note" }, "The file has no sentences as it is now."));
  } catch (error) {
    list.replaceChildren(make("li", { class: "note" }, error.message));
  }
}

function sample(told) {
  const button = make("button", { type: "button", "aria-label": `Say ${quoted(told.text)}` }, "Say it");
  const said = make("div", { class: "last", role: "status" });
  button.addEventListener("click", () => (trying?.button === button ? trying.end() : say(told.text, button, said)));
  return make("li", {}, make("div", { class: "sample" },
    make("span", { class: "said" }, quoted(told.text)), make("span", { class: "why" }, became(told)), button), said);
}

/** Have a sentence said, and tell whether it was understood. */
function say(text, button, said) {
  trying?.end();
  button.textContent = "Stop";
  const done = () => {
    button.textContent = "Say it";
    if (trying?.button === button) trying = null;
  };
  const show = (words) => said.replaceChildren(make("p", { class: "partial" }, words));
  if ($("say-here").checked) {
    let heard = false; // then the rest is not worth telling
    const speech = new Speech({
      begins() {}, rests() {}, level() {}, ends: done,
      show: (words) => words && !heard && show(words),
      became(told) {
        heard = true;
        said.replaceChildren(...judged(told));
      },
    }, text);
    trying = { button, end: () => speech.stop("Stopped.") };
    speech.begin();
    return;
  }
  const stop = new AbortController();
  trying = { button, end: () => stop.abort() };
  show("Say it now, to the microphone of the house. Nobody acts on it.");
  post("/api/trial", { say: text }, stop.signal)
    .then((told) => said.replaceChildren(...judged(told)), (error) => show(error.name === "AbortError" ? "Stopped." : error.message))
    .finally(done);
}

function judged({ right, wanted, result }) {
  if (right) return [make("p", { class: "good" }, make("span", { class: "became" }, make("strong", {}, "Understood. "), `Confidence ${result.confidence.toFixed(2)}.`))];
  const meant = `${wanted.intent} ${slots(wanted.slots)}`.trim();
  return [make("p", { class: "refused" }, make("strong", { class: "reason" }, `Not understood as ${meant}.`)), ...headline(result)];
}

// ---- the file ----

async function load() {
  try {
    show(await ask("/api/grammar"));
  } catch (error) {
    tell(error.message);
  }
}

function show(told) {
  loaded = told;
  const area = $("grammar-text");
  const why = $("grammar-read-only");
  why.hidden = !told.read_only;
  why.replaceChildren(...prose(told.read_only ? `To be read only: ${told.read_only}.` : ""));
  $("grammar-path").textContent = told.path;
  area.value = told.text ?? "";
  area.readOnly = told.text === null || !mayWrite();
  $("grammar-save").hidden = $("grammar-undo").hidden = !mayWrite();
  number();
  saveable();
  look();
}

/** Whether other texts may be looked at: what comes with edgevoice can be tried, and copied, but not saved. */
const mayWrite = () => loaded?.text !== null && mayEdit;

function saveable() {
  $("grammar-save").disabled = Boolean(loaded?.read_only) || !changed() || $("grammar-text").getAttribute("aria-invalid") === "true";
  $("grammar-undo").disabled = !changed();
}

/** The numbers of the lines, beside the text. */
function number() {
  const count = $("grammar-text").value.split("\n").length;
  const numbers = $("grammar-lines");
  if (numbers.textContent.split("\n").length !== count) {
    numbers.textContent = Array.from({ length: count }, (_, i) => i + 1).join("\n");
  }
}

/** Have the text looked at, as soon as the look before is over. */
async function look() {
  clearTimeout(due);
  if (checking !== null || loaded?.text === null) return; // another look follows, see below
  const text = checking = $("grammar-text").value;
  const say = $("grammar-say").value.trim();
  tell("looking at it …");
  try {
    const fields = { ...(mayWrite() ? { text } : {}), ...(say ? { say } : {}) };
    find(await post("/api/grammar/check", fields));
  } catch (error) {
    tell(error.message);
  } finally {
    checking = null;
  }
  if ($("grammar-text").value !== text || $("grammar-say").value.trim() !== say) look();
}

function tell(words) {
  $("grammar-state").textContent = words;
}

const LEVELS = ["error", "warning", "note"];

/** Show what was found, at its lines and in words. */
function find(told) {
  const count = (level) => told.findings.filter((each) => each.level === level).length;
  const counts = LEVELS.filter(count).map((level) => `${count(level)} ${level}${count(level) > 1 ? "s" : ""}`).join(", ");
  const size = told.sentences ? `${told.sentences} sentences of ${told.intents.length} intents. ` : "";
  const part = told.compiled && !told.whole ? "It takes too long to look at all of it; `edgevoice grammar check` does. " : "";
  tell(told.compiled ? `It can be used. ${size}${part}${counts}` : `It cannot be used: ${counts}`);
  $("grammar-text").setAttribute("aria-invalid", String(!told.compiled));
  $("grammar-marks").replaceChildren(...told.findings.map((each) => {
    const mark = make("div", { class: `mark-line ${each.level}` });
    mark.style.setProperty("--line", each.line - 1);
    return mark;
  }));
  $("findings").replaceChildren(...told.findings.map((each) => {
    const button = make("button", { type: "button", class: `finding ${each.level}` },
      make("span", { class: "place" }, `${each.level}, line ${each.line}, column ${each.column}`), ` ${each.text}`);
    button.addEventListener("click", () => go(each.line, each.column));
    return make("li", {}, button);
  }), ...(told.more ? [make("li", { class: "note" }, `and ${told.more} more; edgevoice grammar check has all`)] : []));
  $("grammar-said").replaceChildren(...(told.said ? reading(told.said, (text) => {
    $("grammar-say").value = text;
    look();
  }) : []));
  saveable();
}

/** Put the cursor to a place, and scroll there. */
function go(line, column) {
  const area = $("grammar-text");
  const lines = area.value.split("\n");
  const at = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  const end = at + (lines[line - 1] ?? "").length;
  area.focus();
  area.setSelectionRange(Math.min(at + column - 1, end), end);
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  area.scrollTop = Math.max(0, (line - 1) * LINE_REM * rem - area.clientHeight / 2);
}

async function save() {
  const text = $("grammar-text").value;
  $("grammar-save").disabled = saving = true;
  tell("saving …");
  try {
    const told = await post("/api/grammar", { text, digest: loaded.digest });
    loaded = told;
    find(told);
    const { error } = told.state;
    tell(error ? `Saved, but it cannot be used: ${error}` : `Saved and in use. What was there before is in ${told.path}.bak`);
    moreSamples();
  } catch (error) {
    if (error.status === 422) find(error.told);
    tell(`Not saved: ${error.message}`);
  } finally {
    saving = false;
    saveable();
  }
}

export function offerGrammar() {
  $("samples-more").addEventListener("click", moreSamples);
  $("say-here").disabled = !canSpeak();
  const area = $("grammar-text");
  $("editor").addEventListener("toggle", () => $("editor").open && !loaded && load());
  area.addEventListener("input", () => {
    number();
    saveable();
    clearTimeout(due);
    due = setTimeout(look, PAUSE_MS);
  });
  area.addEventListener("scroll", () => area.parentElement.style.setProperty("--scrolled", `${-area.scrollTop}px`));
  $("grammar-say-form").addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  $("grammar-save").addEventListener("click", save);
  $("grammar-undo").addEventListener("click", load);
  addEventListener("beforeunload", (event) => loaded && !area.readOnly && changed() && event.preventDefault());
}
