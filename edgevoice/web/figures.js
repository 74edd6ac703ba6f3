// How it fares: figures, how long each stage takes, settings.

import { $, fixed, make } from "./common.js";
import { STAGES } from "./utterances.js";

export function showHealth(told) {
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
  showTimes(told.stages, told.bounds_s);
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

// ---- how long it takes ----

const WIDTH = 280, HEIGHT = 30; // of the drawing of one stage
const MARKS = [0.01, 0.1, 1]; // in s, ends of parts

/** A row for each stage: how often it took how long, and the middle and the slow ones. */
function showTimes(stages, bounds) {
  const names = Object.keys(stages).filter((name) => stages[name].some(Boolean));
  $("times").hidden = names.length === 0;
  const rows = names.map((name) => {
    const counts = stages[name];
    const of = name === "latency" ? "answer after the last word" : STAGES[name] ?? name;
    return make("tr", {},
      make("th", { scope: "row" }, of),
      make("td", { class: "number" }, seconds(quantile(counts, bounds, 0.5))),
      make("td", { class: "number" }, seconds(quantile(counts, bounds, 0.95))),
      make("td", { class: "number many" }, String(counts.reduce((sum, count) => sum + count, 0))),
      make("td", { class: "drawing" }, histogram(counts, bounds, of)));
  });
  if (names.length) $("times-marks").replaceChildren(...scale(bounds));
  $("times-rows").replaceChildren(...rows);
}

/** Bars of how many took how long; every part is as wide as the others, its bounds grow. */
function histogram(counts, bounds, of) {
  const most = Math.max(...counts);
  const wide = WIDTH / counts.length;
  const drawing = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${of}: ${
    counts.map((count, i) => (count ? `${count} ${i < bounds.length ? `up to ${seconds(bounds[i])}` : `longer than ${seconds(bounds.at(-1))}`}` : "")).filter(Boolean).join(", ")}` });
  counts.forEach((count, i) => {
    const height = count ? Math.max(2, (HEIGHT - 2) * (count / most)) : 0;
    const bar = make("rect", { class: "count", x: (i * wide + 1).toFixed(1), width: (wide - 2).toFixed(1), y: (HEIGHT - 1 - height).toFixed(1), height: height.toFixed(1) });
    if (count) drawing.append(bar);
  });
  drawing.append(make("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
  for (const bound of MARKS) {
    const x = (bounds.indexOf(bound) + 1) * wide;
    drawing.append(make("line", { class: "axis", x1: x, x2: x, y1: 0, y2: HEIGHT }));
  }
  return drawing;
}

/** What the lines in the drawings stand for. */
function scale(bounds) {
  return MARKS.map((bound) => {
    const mark = make("span", {}, seconds(bound));
    mark.style.setProperty("--place", (bounds.indexOf(bound) + 1) / (bounds.length + 1));
    return mark;
  });
}

/** The time that a share of all do not exceed: a straight line within its part, as Prometheus has it. */
export function quantile(counts, bounds, share) {
  const wanted = share * counts.reduce((sum, count) => sum + count, 0);
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (counts[i] && below + counts[i] >= wanted) {
      const from = i ? bounds[i - 1] : 0;
      return from + (bounds[i] - from) * ((wanted - below) / counts[i]);
    }
    below += counts[i];
  }
  return bounds.at(-1);
}

const seconds = (value) => (value >= 0.9995 ? `${Number(value.toFixed(1))} s` : value >= 0.00995 ? `${Math.round(value * 1000)} ms` : `${(value * 1000).toFixed(1)} ms`);

// ---- settings ----

const WAKES = {
  always: "everything is meant for it", phrase: "what begins with", model: "after", push_to_talk: "when it is asked to listen",
};

export function tellSettings(told, about) {
  const { grammar, wake } = told;
  const settings = {
    "site": about.site,
    "microphone": told.microphone === false ? "none" : told.microphone === null ? "the system's default" : String(told.microphone),
    "wake word": [WAKES[wake.mode], wake.phrase ?? wake.model?.replaceAll("_", " ")].filter(Boolean).join(" "),
    "grammar": grammar ? `${grammar.file}, ${grammar.intents.length} intents, ${grammar.language}` : "–",
    "confidence asked for": fixed(told.confidence, 2),
    "speech counts from": fixed(about.speech_threshold, 2),
    "silence that ends": `${told.silence_ms.join(", ")} ms`,
    "model": `${told.model}, ${told.threads} ${told.threads === 1 ? "thread" : "threads"}${told.mode === "grammar" ? "" : `, mode ${told.mode}`}`,
    "broker": told.broker ?? "none",
    "records": about.records.keep ? `the last ${about.records.keep}${about.records.audio ? "" : ", without sound"}` : "none",
    "edgevoice": about.version,
  };
  $("settings").replaceChildren(...Object.entries(settings).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
}
