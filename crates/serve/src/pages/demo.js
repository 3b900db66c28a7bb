// A page view by two models: which one, by whom, and what is asked of the server.
//
// A candidate is known by its place in the request, because an item may be there twice. The server scores; order is eCPM, bid
// times rate, which is computed here too, so that it follows a bid at once; then the server is asked again.

import { Problem, ask, h } from "../docs/page.js";
import { Board } from "./board.js";
import { Reasons } from "./explain.js";

const at = (id) => document.getElementById(id);
const path = (model, what = "") => `v1/models/${encodeURIComponent(model)}${what}`;

/** How long nobody must have changed a bid before the server is asked again, ms. */
const QUIET = 250;

const state = { models: [], cards: new Map(), model: "", baseline: "", view: 0, page: null, bids: [], turn: 0 };
const reasons = new Reasons({ history: at("history"), why: at("why"), say: at("say"), whole: at("whole-history") });
const board = new Board(at("board"), {
  point: (column, place, how) => reasons.show(column, place, how),
  bid: changeBid,
  retry: () => open(),
});
reasons.marks = (...ad) => board.mark(...ad);
reasons.seek = (...ad) => board.seek(...ad);
reasons.leave = (...ad) => board.focus(...ad);

/** A notice instead of the page. */
function notice(title, detail, again) {
  at("page").hidden = true;
  at("main").removeAttribute("aria-busy");
  const retry = again && h("button", { type: "button", onclick: again }, "Try again");
  const kind = again ? "notice" : "notice plain";
  at("notice").replaceChildren(h("div", { class: kind, role: "alert" }, h("h2", {}, title), h("p", {}, detail), retry));
}

function cautious(work) {
  return async (...given) => {
    try {
      await work(...given);
    } catch (error) {
      if (!(error instanceof Problem)) console.error(error);
      notice(error.title ?? "This page has a defect", error.detail ?? String(error), start);
    }
  };
}

const cardOf = async (model) => {
  if (!state.cards.has(model)) state.cards.set(model, await ask(path(model)));
  return state.cards.get(model);
};

/** Whether a model looks at pictures. */
const sees = (card) => (card?.spec?.images ?? "none") !== "none";

const start = cautious(async () => {
  at("notice").replaceChildren();
  at("main").setAttribute("aria-busy", "true");
  state.cards.clear();
  state.models = (await ask("v1/models")).filter(({ version }) => version !== null).map(({ model }) => model);
  if (state.models.length === 0) {
    notice("No model yet", "Nothing is published in the folder that is served, or it is still being checked.", start);
    return;
  }
  // The first cards say which model sees pictures; a folder of hundreds is not read for that.
  const cards = await Promise.all(state.models.slice(0, 8).map(cardOf));
  const asked = new URLSearchParams(location.hash.slice(1));
  const known = (name) => (state.models.includes(name) ? name : undefined);
  state.model = known(asked.get("model")) ?? (cards.find(sees) ?? cards[0]).model;
  const others = cards.filter((card) => card.model !== state.model);
  const usual = (others.find((card) => !sees(card)) ?? others[0])?.model ?? "";
  state.baseline = asked.get("baseline") === "" ? "" : known(asked.get("baseline")) ?? usual;
  state.view = Number.parseInt(asked.get("view") ?? "1", 10) - 1 || 0;
  const options = state.models.map((name) => h("option", { value: name }, name));
  at("model").replaceChildren(...options);
  at("baseline").replaceChildren(h("option", { value: "" }, "none"), ...options.map((option) => option.cloneNode(true)));
  at("choices").hidden = false;
  await fill();
});

/** Fills the list of page views and opens one. */
async function fill() {
  const { samples } = await cardOf(state.model);
  at("model").value = state.model;
  at("baseline").value = state.baseline;
  const one = samples.length === 1;
  for (const id of ["previous", "next"]) at(id).disabled = samples.length < 2;
  at("view").disabled = samples.length === 0;
  const described = samples.map((page, index) => h("option", { value: index }, describe(page)));
  at("view").replaceChildren(...described);
  if (samples.length === 0) {
    const detail = `The bundle of ${state.model} has no sample request: its test had no page view of three ads or more for somebody with three clicks or more.`;
    notice("No page view to show", detail);
    return;
  }
  state.view = one ? 0 : ((state.view % samples.length) + samples.length) % samples.length;
  at("view").value = state.view;
  await open();
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const nameOf = (page) => page.user?.id ?? "Somebody unknown";

function describe(page) {
  const clicks = page.user?.behaviors?.item?.length ?? 0;
  return `${nameOf(page)} · ${count(clicks, "click")}, ${count(page.candidates.item.length, "ad")}`;
}

/** The columns: the baseline, if there is one, and the model. */
function columns() {
  const models = state.baseline === "" ? [state.model] : [state.baseline, state.model];
  return models.map((model, index) => ({ index, model, version: null, ctr: null, problem: null }));
}

/** Shows the chosen page view, and has it scored. */
async function open() {
  const turn = ++state.turn;
  const { samples } = await cardOf(state.model);
  const page = samples[state.view];
  state.page = page;
  state.usual = page.candidates.item.map((_, place) => page.candidates.bid?.[place] ?? 1);
  state.bids = [...state.usual];
  at("reset").hidden = true;
  at("notice").replaceChildren();
  at("page").hidden = false;
  at("main").setAttribute("aria-busy", "true");
  at("person-name").textContent = nameOf(page);
  at("person-about").textContent = about(page);
  state.columns = columns();
  reasons.open(page, state.model, explain);
  board.open(page, state.columns, state.bids);
  at("summary").textContent = "";
  const hash = new URLSearchParams({ model: state.model, baseline: state.baseline, view: state.view + 1 });
  history.replaceState(null, "", `#${hash}`);
  await Promise.all(state.columns.map((column) => score(column, turn)));
  if (turn !== state.turn) return;
  at("main").removeAttribute("aria-busy");
  const best = state.columns.at(-1);
  // Where there is room beside the ads, and not over them.
  if (best.ctr && matchMedia("(min-width: 901px)").matches) reasons.show(best, board.order(best)[0]);
}

/** Features of user and context, in words. */
function about(page) {
  const features = { ...page.user?.features, ...page.context };
  const words = Object.entries(features).filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${[value].flat().join(", ")}`);
  return words.join(" · ");
}

/** Asks for the rates of a column's candidates; a later turn makes the answer worthless. */
async function score(column, turn) {
  const { page } = state;
  const candidates = { ...page.candidates, bid: state.bids };
  try {
    const [scored, card] = await Promise.all([
      ask(path(column.model, "/score"), { ...page, candidates, options: {} }), cardOf(column.model),
    ]);
    if (turn !== state.turn) return;
    const rates = new Map();
    scored.items.forEach((item, rank) => rates.set(item, [...(rates.get(item) ?? []), scored.ctr[rank]]));
    // Rates are 32-bit floats, and the server multiplies them as such.
    column.ctr = page.candidates.item.map((item) => Math.fround(rates.get(String(item)).shift()));
    if (column.version !== scored.version) reasons.forget(column);
    Object.assign(column, { version: scored.version, missing: scored.missing, card, problem: null });
  } catch (problem) {
    if (turn !== state.turn) return;
    if (!(problem instanceof Problem)) throw problem;
    Object.assign(column, { ctr: null, problem });
  }
  board.show(column);
  summarize();
}

/** What the model says of one candidate; it does not depend on the others, nor on bids. */
function explain(column, place) {
  const { item, features = {} } = state.page.candidates;
  const one = Object.fromEntries(Object.entries(features).map(([name, cells]) => [name, [cells[place]]]));
  const candidates = { item: [item[place]], features: one };
  return ask(path(column.model, "/explain"), { ...state.page, candidates, options: { top_k: 1 } });
}

let quiet;

/** A bid was changed: the order follows at once, and the server's answer soon. */
function changeBid(place, bid) {
  state.bids[place] = bid;
  at("reset").hidden = state.bids.every((now, other) => now === state.usual[other]);
  state.columns.forEach((column) => column.ctr && board.show(column));
  summarize();
  clearTimeout(quiet);
  quiet = setTimeout(cautious(async () => {
    const turn = ++state.turn;
    await Promise.all(state.columns.map((column) => score(column, turn)));
  }), QUIET);
}

/** The difference in a sentence. */
function summarize() {
  const [left, right] = state.columns;
  if (!right || !left.ctr || !right.ctr) {
    at("summary").textContent = "";
    return;
  }
  const before = board.order(left);
  const moved = board.order(right).filter((place, rank) => before[rank] !== place).length;
  const all = before.length;
  const [one, other] = [right, left].map(({ model }) => h("b", {}, model));
  at("summary").replaceChildren(...(moved === 0
    ? [one, ` ranks all ${all} ads as `, other, " does."]
    : [one, ` puts ${moved} of ${all} ads at another place than `, other, "."]));
}

function choose(change) {
  return cautious(async (event) => {
    clearTimeout(quiet);
    change(event);
    await fill();
  });
}

at("choices").addEventListener("submit", (event) => event.preventDefault());
at("view").addEventListener("change", choose(() => { state.view = Number(at("view").value); }));
at("previous").addEventListener("click", choose(() => { state.view -= 1; }));
at("next").addEventListener("click", choose(() => { state.view += 1; }));
at("model").addEventListener("change", choose(() => { state.model = at("model").value; }));
at("baseline").addEventListener("change", choose(() => { state.baseline = at("baseline").value; }));
at("reset").addEventListener("click", () => {
  state.usual.forEach((bid, place) => { state.bids[place] = bid; });
  board.bidsChanged();
  changeBid(0, state.usual[0]);
  at("view").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") reasons.close();
});

start();
