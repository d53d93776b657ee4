"use strict";
// Draws what the page's JSON block holds: charts, and the questions of one or several evaluations ("sides") in a table
// with filters and a search, and a reader for one question. Every text gets into the page as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An HTML element; `attributes` that are null are left out, children may be texts.
function html(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// ---------------------------------------------------------------------------------------------------------------------
// Charts

const WIDTH = 560, HEIGHT = 300, LEFT = 58, RIGHT = 14, TOP = 10, BOTTOM = 40;

// Round numbers about as far apart as a fifth of the way from `low` to `high`, from the last one below to the first above.
function ticksOf(low, high) {
  const rough = (high - low || Math.abs(high) || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough), ticks = [];
  for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i++) ticks.push(i * step);
  return ticks;
}

function powersOf(low, high) {
  const ticks = [];
  for (let i = Math.floor(Math.log10(low)); i <= Math.ceil(Math.log10(high)); i++) ticks.push(10 ** i);
  return ticks;
}

// 7.5e-5, where 0.000075 would not fit beside an axis
function shortened(value) {
  const rounded = Number(value.toPrecision(4));
  return rounded !== 0 && Math.abs(rounded) < 0.001 ? rounded.toExponential() : String(rounded);
}

function drawChart(figure, chart) {
  const points = chart.series.flatMap((one) => one.points);
  const xs = points.map((point) => point[0]), ys = points.flatMap((point) => point.slice(1));
  const left = Math.min(...xs), right = Math.max(...xs);
  const yTicks = chart.log ? powersOf(Math.min(...ys), Math.max(...ys)) : ticksOf(Math.min(...ys), Math.max(...ys));
  const scale = chart.log ? Math.log10 : (value) => value;
  const low = Math.min(scale(yTicks[0]), ...ys.map(scale)), high = Math.max(scale(yTicks.at(-1)), ...ys.map(scale));
  const x = (value) => LEFT + ((value - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((scale(value) - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);

  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": chart.title });
  for (const tick of yTicks) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    drawing.append(svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, shortened(tick)));
  }
  for (const tick of ticksOf(left, right).filter((one) => one >= left && one <= right && Number.isInteger(one))) {
    drawing.append(svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, shortened(tick)));
  }
  drawing.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, chart.x));
  const legend = html("ul", { class: "legend" });
  for (const series of chart.series) {
    const colour = `s${series.colour % 6}`, dashed = series.dashed ? " dashed" : "";
    const line = series.points.map((point, i) => `${i ? "L" : "M"}${x(point[0])} ${y(point[1])}`).join("");
    drawing.append(svg("path", { class: colour + dashed, d: line }));
    const small = series.points.length > 100 ? 1.5 : 3;
    for (const [at, value, from, to] of series.points) {
      if (from !== undefined) drawing.append(svg("line", { class: colour, x1: x(at), x2: x(at), y1: y(from), y2: y(to) }));
      const range = from === undefined ? "" : ` [${shortened(from)}, ${shortened(to)}]`;
      const title = svg("title", {}, `${series.name}, ${chart.x} ${at}: ${shortened(value)}${range}`);
      const chosen = at === series.chosen;
      drawing.append(svg("circle", { class: colour, cx: x(at), cy: y(value), r: chosen ? 6 : small }, title));
      if (chosen) drawing.append(svg("text", { x: x(at), y: y(value) - 10, "text-anchor": "middle" }, "★"));
    }
    const sample = svg("svg", { viewBox: "0 0 30 10" });
    sample.append(svg("path", { class: colour + dashed, d: "M0 5H30" }), svg("circle", { class: colour, cx: 15, cy: 5, r: 3 }));
    legend.append(html("li", {}, sample, series.name));
  }
  if (chart.series.some((one) => one.chosen !== null)) legend.append(html("li", {}, "★ the step that was chosen on dev"));
  figure.append(drawing, legend);
}

document.querySelectorAll("figure.chart").forEach((figure, i) => drawChart(figure, data.charts[i]));

// ---------------------------------------------------------------------------------------------------------------------
// Which questions are shown

const names = data.names, single = names.length === 1;
const some = (test) => (question) => question.sides.some(test);
const every = (test) => (question) => question.sides.every(test);
const isRight = (side) => side.correct, isWrong = (side) => !side.correct;
const changed = (question) => some(isRight)(question) && some(isWrong)(question);
const FILTERS = [
  ["all", () => true],
  [single ? "right" : "all right", every(isRight)],
  [single ? "wrong" : "all wrong", every(isWrong)],
  ...(single ? [] : [["changed", changed]]),
  ...(names.length === 2 ? names.map((name, i) => [`only ${name} right`, (q) => changed(q) && q.sides[i].correct]) : []),
  ["tied", some((side) => side.tied)],
  ["without an answer", some((side) => side.answers.includes(null))],
  ["cut off", some((side) => side.finished.includes(0))],
];
const CHUNK = 100; // rows that are made at a time, as they come into view
let chosen = FILTERS[0][1], found = [], opened = -1;

// All that the search looks through of a question, in small letters; made when it is first needed.
function haystack(question) {
  if (!question.haystack) {
    const sides = question.sides.flatMap((side) => [...side.answers, ...(side.texts || [])]);
    const words = [question.number, question.question, ...question.options, question.gold, question.reference, ...sides];
    question.haystack = words.join("\n").toLowerCase();
  }
  return question.haystack;
}

function select() {
  const words = byId("search").value.trim().toLowerCase();
  found = data.questions.filter((one) => chosen(one) && (!words || haystack(one).includes(words)));
  byId("shown").textContent = `${found.length} of ${data.questions.length} questions`;
  byId("rows").tBodies[0].replaceChildren();
  moreRows();
}

// ---------------------------------------------------------------------------------------------------------------------
// The table

const count = (values) => values.filter(Boolean).length;

function voteCell(side) {
  const sign = side.correct ? "✓" : "✗", word = side.correct ? "right" : "wrong";
  const of = `${count(side.hits)}/${side.hits.length}`, tied = side.tied ? " tied" : "";
  const answer = names.length > 2 ? [] : [` ${side.vote ?? "none"} `, html("small", {}, `${of}${tied}`)];
  const cell = html("td", { class: `vote ${word}`, title: `${word}: ${side.vote ?? "no answer"}, ${of} right${tied}` });
  cell.append(html("span", { role: "img", "aria-label": word }, sign), ...answer);
  return cell;
}

function moreRows() {
  const body = byId("rows").tBodies[0], start = body.rows.length;
  const rows = found.slice(start, start + CHUNK).map((question, i) => {
    const row = html("tr", { tabindex: start + i ? -1 : 0 }, html("td", { class: "number" }, String(question.number)));
    row.append(html("td", {}, html("div", {}, question.question)), html("td", { class: "gold" }, question.gold));
    row.append(...question.sides.map(voteCell));
    return row;
  });
  body.append(...rows);
}

// Puts the keyboard on a row, which is made if need be.
function focusRow(index) {
  const body = byId("rows").tBodies[0];
  while (body.rows.length <= index && body.rows.length < found.length) moreRows();
  const row = body.rows[Math.max(0, Math.min(index, body.rows.length - 1))];
  if (!row) return;
  body.querySelectorAll("tr[tabindex='0']").forEach((one) => one.setAttribute("tabindex", -1));
  row.setAttribute("tabindex", 0);
  row.focus();
}

// ---------------------------------------------------------------------------------------------------------------------
// The reader

// The last place where the answer stands in the text, as [start, end]; null where it does not stand there as it is
// written here. A number may have commas and zeros behind; in formulas white space does not count.
function placeOf(text, answer) {
  const plain = (letter) => letter.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");
  let pattern = [...answer.trim()].map(plain).join("");
  if (/^-?\d+(\.\d+)?$/.test(answer)) {
    pattern = [...answer].map(plain).join("").replace(/(\d)(?=\d+(\\\.|$))/g, "$1,?");
    pattern = `(?<![\\d.]|\\d,)${pattern}${answer.includes(".") ? "0*" : "(?:\\.0+)?"}(?!\\d|[.,]\\d)`;
  } else if (/^\w+$/.test(answer)) {
    pattern = `(?<!\\w)${pattern}(?!\\w)`;
  } else {
    pattern = [...answer.replace(/\s/g, "")].map(plain).join("\\s*");
  }
  const places = [...text.matchAll(new RegExp(pattern, data.answer_type === "boolean" ? "gi" : "g"))];
  return places.length && places.at(-1)[0] ? [places.at(-1).index, places.at(-1).index + places.at(-1)[0].length] : null;
}

function sampleOf(side, i) {
  const answer = side.answers[i], word = side.hits[i] ? "right" : "wrong", text = side.texts[i];
  const place = answer === null ? null : placeOf(text, answer);
  const same = count(side.groups.map((group) => answer !== null && group === side.groups[i]));
  const head = html("h4", { class: word }, `${side.hits[i] ? "✓" : "✗"} ${answer === null ? "no answer" : answer}`);
  const facts = [`sample ${i}`, answer === null ? "does not vote" : `votes with ${same} of ${side.hits.length}`];
  if (answer !== null && side.groups[i] === side.winner) facts.push("wins");
  facts.push(`score ${side.scores[i]}`, `${side.tokens[i]} tokens`);
  if (!side.finished[i]) facts.push("cut off");
  if (answer !== null && !place) facts.push("the answer is not in the text in these letters");
  const parts = place ? [text.slice(0, place[0]), html("mark", {}, text.slice(...place)), text.slice(place[1])] : [text];
  return html("article", { class: "sample" }, head, html("p", {}, facts.join(" · ")), html("pre", {}, ...parts));
}

// Each answer with the number of its votes, the most votes first.
function tally(side) {
  const votes = new Map();
  side.groups.forEach((group, i) => {
    const key = group === null ? "none" : group, entry = votes.get(key);
    votes.set(key, { answer: entry ? entry.answer : side.answers[i] ?? "no answer", size: (entry ? entry.size : 0) + 1 });
  });
  const sorted = [...votes.values()].sort((a, b) => b.size - a.size);
  return sorted.map((one) => `${one.answer} (${one.size})`).join(", ");
}

function fillReader() {
  const question = found[opened], text = byId("text");
  byId("place").textContent = `Question ${question.number} (${opened + 1} of ${found.length})`;
  byId("before").disabled = opened === 0;
  byId("next").disabled = opened === found.length - 1;
  text.replaceChildren(html("pre", { class: "question" }, question.question));
  question.options.forEach((option, i) => {
    text.append(html("div", {}, `${String.fromCharCode(65 + i)}. ${option}`));
  });
  text.append(html("h3", {}, `Gold answer: ${question.gold}`));
  if (question.reference !== question.gold) {
    text.append(html("details", {}, html("summary", {}, "in the row's words"), html("pre", {}, question.reference)));
  }
  if (question.words) {
    const lines = question.words.map((words, i) => `${i}: ${words.join(", ")}`).join("\n");
    text.append(html("details", {}, html("summary", {}, "the thoughts' nearest words"), html("pre", {}, lines)));
  }
  question.sides.forEach((side, i) => {
    const title = `${single ? "" : `${names[i]}: `}vote ${side.vote ?? "none"}, ${side.correct ? "right" : "wrong"}`;
    text.append(html("h3", { class: side.correct ? "right" : "wrong" }, title + (side.tied ? ", tied" : "")));
    text.append(html("div", {}, `votes: ${tally(side)}`));
    if (side.texts) text.append(...side.texts.map((_, j) => sampleOf(side, j)));
  });
  text.append(html("p", { class: "hint" }, data.marking));
  text.scrollTop = 0;
}

function open(index) {
  if (index < 0 || index >= found.length) return;
  opened = index;
  fillReader();
  if (!byId("reader").open) byId("reader").showModal();
  byId("text").focus();
}

// ---------------------------------------------------------------------------------------------------------------------
// What the reader of the page does

function start() {
  for (const [label, test] of FILTERS) {
    const button = html("button", { type: "button", "aria-pressed": String(test === chosen) });
    button.append(`${label} ${data.questions.filter(test).length}`);
    button.addEventListener("click", () => {
      chosen = test;
      byId("filters").querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      select();
    });
    byId("filters").append(button);
  }
  const titles = ["row", "question", "gold", ...(single ? ["vote, right"] : names)];
  const classes = ["number", null, "gold", ...names.map(() => "vote")];
  byId("rows").tHead.rows[0].append(...titles.map((title, i) => html("th", { scope: "col", class: classes[i] }, title)));
  byId("rows").className = ["one", "two", "many"][Math.min(names.length, 3) - 1];
  byId("search").addEventListener("input", select);

  const body = byId("rows").tBodies[0], indexOf = (event) => event.target.closest("tr").sectionRowIndex;
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  body.addEventListener("click", (event) => open(indexOf(event)));
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") open(indexOf(event));
    else if (event.key in moves) focusRow(Math.max(0, Math.min(indexOf(event) + moves[event.key], found.length - 1)));
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || byId("reader").open || event.target === byId("search")) return;
    byId("search").focus();
    event.preventDefault();
  });
  byId("reader").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) open(opened + step);
  });
  byId("reader").addEventListener("close", () => focusRow(opened));
  byId("before").addEventListener("click", () => open(opened - 1));
  byId("next").addEventListener("click", () => open(opened + 1));
  byId("close").addEventListener("click", () => byId("reader").close());
  new IntersectionObserver((entries) => entries.some((one) => one.isIntersecting) && moreRows(), { rootMargin: "800px" }).observe(byId("more"));
  select();
}

if (data.questions.length) start();
