// The last commands, and why: the list, and what is known of each when it is opened.
//
//   /api/utterances ──> a line each ── opened ──> /api/utterances/ID ──> why, sound, timeline, candidates
//   run again ──> .../again ──> what has changed; what was meant ──> .../label

import { $, QUIET_DBFS, about, ask, became, fixed, headline, make, post, prose, quoted, slots, table } from "./common.js";

const ENDS = {
  pause: "a pause", silence: "silence", too_long: "it was too long",
  end_of_stream: "the end", overload: "others came",
};
export const STAGES = {
  vad: "detector", mel: "spectrogram", encode: "encoder", search: "search", match: "meaning",
  explain: "explain", total: "together",
};

/** Take new ones to the top of the list, where those that are there stay as they are. */
export async function refresh() {
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
    make("span", { class: "why" }, sure + soon, make("span", { class: "meant" }, meant(told.label)),
      told.trial ? "; tried out, nobody acted on it" : ""),
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
    body.append(...why(all), ...sound(all), ...actions(all), timeline(all, body.clientWidth || 600), ...tries(all), ...candidates(all), ...timings(all), ...basis(all));
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

/** What can be done with it: run it again, say what was meant. */
function actions(all) {
  if (!all.sound) return [];
  const again = make("button", { type: "button" }, "Run again");
  const said = make("p", { class: "outcome", role: "status" });
  const field = make("input", { id: `meant-${all.id}`, maxlength: 500, autocomplete: "off", value: all.result.accepted ? all.result.text.trim() : "" });
  const none = make("button", { type: "button" }, "No command");
  const form = make("form", { class: "field wide" }, make("label", { for: field.id }, "What did you mean?"), field,
    make("button", { type: "submit" }, "This was meant"), none);
  again.addEventListener("click", () => tell(again, said, async () => {
    said.replaceChildren(...changes(await post(`/api/utterances/${all.id}/again`)));
  }));
  const label = (say) => async () => {
    const { label: told } = await post(`/api/utterances/${all.id}/label`, { say });
    document.getElementById(all.id).querySelector(".meant").textContent = meant(told);
    said.replaceChildren(`Kept: ${meant(told).slice(2)}. `, make("code", {}, "edgevoice eval"), " can measure with it.");
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) tell(event.submitter, said, label(field.value));
  });
  none.addEventListener("click", () => tell(none, said, label(null)));
  return [make("div", { class: "actions" }, again), form, said];
}

/** Do something with a button that waits, and say why it did not go. */
async function tell(button, said, work) {
  button.disabled = true;
  said.textContent = "…";
  try {
    await work();
  } catch (error) {
    said.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

/** What another run of a record has changed. */
function changes(told) {
  const judged = told.right === null ? "" : told.right ? " This is what was meant." : " This is not what was meant.";
  const outcome = (of) => (of.accepted ? `${quoted(of.text)} ${became(of)}` : `refused: ${of.reason}`);
  const sure = `confidence ${fixed(told.after.confidence, 3)}`;
  const otherwise = told.otherwise.length ? ` Then with other ${told.otherwise.join(", ")}.` : "";
  if (told.same) return [make("strong", {}, "The same"), `, to the last bit: ${outcome(told.after)}.${judged}`];
  if (told.tells_the_same) return [make("strong", {}, "The same command"), `, ${sure}, then ${fixed(told.before.confidence, 3)}.${otherwise}${judged}`];
  return [make("strong", {}, "Now: "), `${outcome(told.after)}, ${sure}. Then: ${outcome(told.before)}.${otherwise}${judged}`];
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
