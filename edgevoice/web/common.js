// What all parts of the page use. What was said is put into the page as text only, never as HTML.

export const QUIET_DBFS = -72; // an empty meter; below is no sound card
export const about = { records: { keep: 0, audio: false }, speech_threshold: 0.5 }; // what edgevoice says of itself

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; texts become text. */
export function make(name, attributes = {}, ...children) {
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
export function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

export const quoted = (text) => `“${text.trim()}”`;
export const slots = (values) => Object.entries(values).map(([name, value]) => `${name} ${value}`).join(", ");
export const fixed = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

/** Ask for something to be done; an error has its status, and what came with it if that is JSON. */
export async function post(path, fields = {}, signal = undefined) {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fields), signal,
  });
  if (answer.status === 401) location.assign("/login");
  if (answer.ok) return answer.json();
  const json = answer.headers.get("content-type") === "application/json";
  const told = json ? await answer.json() : (await answer.text()).trim();
  throw Object.assign(new Error(json ? told.why : told || `status ${answer.status}`), { status: answer.status, told });
}

/** What became of something that was said. */
export function headline(told) {
  return told.accepted
    ? [make("strong", {}, quoted(told.text)), make("p", { class: "good" }, make("span", { class: "became" }, became(told)))]
    : [
      make("strong", {}, `Refused: ${told.words?.short ?? told.reason}`),
      make("p", {}, told.heard ? `It sounds like ${quoted(told.heard)} ` : "", prose(told.words ? `${told.words.meaning} ${told.words.remedy}` : "")),
    ];
}

export const became = (told) => `→ ${told.intent}${Object.keys(told.slots).length ? ` (${slots(told.slots)})` : ""}`;

export function table(heads, numbers, rows) {
  const cell = (name) => (text, i) => make(name, { class: numbers.includes(i) ? "number" : null, scope: name === "th" ? "col" : null }, text);
  return make("div", { class: "scroll", tabindex: "0" }, make("table", { class: heads.length > 3 ? "wide" : null },
    make("thead", {}, make("tr", {}, heads.map(cell("th")))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))));
}
