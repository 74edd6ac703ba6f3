// What is typed: what it means, or why nothing; and done, if that is wanted.

import { $, became, make, post, prose, quoted, slots } from "./common.js";

/** What a grammar makes of a text, for people; `choose` takes a sentence that is pushed. */
export function reading(told, choose) {
  if (told.readings.length === 0 && !told.meanings?.length) return refusal(told, choose);
  const meanings = told.meanings ?? told.readings;
  const several = new Set(meanings.map((each) => each.intent)).size > 1 || told.outcome === "ambiguous";
  return [
    several ? make("p", {}, make("strong", {}, "Refused: it can mean several things. "), "Word one of them differently, or remove one.") : null,
    told.outcome === "asleep" ? make("p", {}, make("strong", {}, "Refused now. "), "This intent is switched off, or can only answer a question.") : null,
    ...meanings.map((each) => make("p", { class: several || told.outcome === "asleep" ? null : "good" },
      each.corrected ? make("span", {}, `Taken for ${quoted(each.sentence)} `) : null,
      make("span", { class: "became" }, became(each)), each.confirm ? ", once you have confirmed it" : "")),
    ...told.readings.slice(0, 3).map((each) => make("p", { class: "note" }, `By line ${each.line} of ${told.file}: `, make("code", {}, each.template))),
  ].filter(Boolean);
}

function refusal(told, choose) {
  const where = !told.reached ? "No sentence begins like this."
    : told.rest ? `${quoted(told.reached)} begins a sentence, ${quoted(told.rest)} does not go on.`
      : `${quoted(told.reached)} begins a sentence, and more must follow.`;
  const near = told.nearest.map((each) => {
    const button = make("button", { type: "button", class: "inline" }, each.text);
    button.addEventListener("click", () => choose(each.text));
    return make("li", {}, button, ` ${became(each)}`);
  });
  return [
    make("p", {}, make("strong", {}, "No sentence of the grammar. "), where),
    told.next.length ? make("p", { class: "note" }, "Could come next: ", ...told.next.flatMap((each, i) => [i ? ", " : "", make("code", {}, each)]), told.more ? ", …" : "") : null,
    near.length ? make("p", {}, "Nearest:") : null,
    near.length ? make("ul", { class: "plain" }, near) : null,
  ].filter(Boolean);
}

export function offerText() {
  const field = $("text");
  const shown = $("text-became");
  const choose = (text) => {
    field.value = text;
    field.focus();
    $("text-form").requestSubmit();
  };
  $("text-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const say = field.value;
    if (!say.trim()) return;
    try {
      const told = await post("/api/text", { say });
      shown.replaceChildren(...reading(told, choose), ...(told.outcome === "understood" ? [doing(say)] : []));
    } catch (error) {
      shown.replaceChildren(make("p", {}, error.message));
    }
  });
  field.addEventListener("input", () => shown.replaceChildren());
}

/** The button that gives a typed command to the house. */
function doing(say) {
  const button = make("button", { type: "button" }, "Do it");
  const said = make("span", { class: "note" }, " Nothing has happened yet.");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const { result } = await post("/api/do", { say });
      said.replaceChildren(" Done: ", ...prose(`${result.intent} ${slots(result.slots)}`));
    } catch (error) {
      said.textContent = ` ${error.message}`;
      button.disabled = false;
    }
  });
  return make("p", { class: "do" }, button, said);
}
