// Why an ad has its rate: how much each past click raised it, on the pictures of the history and in words.

import { Problem, h, hasToken, success } from "../docs/page.js";

const hasPictures = document.querySelector('meta[name="pictures"]')?.content === "yes";

/** How many past clicks are shown before somebody wants all. */
const SHOWN = 24;

/** How many of them are named in the explanation. */
const NAMED = 5;

/** A difference of rates, in points. */
const points = (raise) => `${raise > 0 ? "+" : "−"}${Math.abs(100 * raise).toFixed(1)}`;
const percent = (rate) => `${(100 * rate).toFixed(1)} %`;

/** The picture of an item, or its name on a tile where there is none. */
export function picture(model, item) {
  const tile = h("span", { class: "picture" });
  const none = () => tile.replaceChildren(h("span", { class: "none", "aria-hidden": "true" }, String(item).slice(-4)));
  if (!hasPictures) {
    none();
    return tile;
  }
  const source = `demo/picture?${new URLSearchParams({ model, item })}`;
  const image = h("img", { alt: "", decoding: "async", onerror: none });
  tile.append(image);
  if (hasToken()) {
    // An element cannot send the token.
    success("GET", source).then(async (response) => {
      const url = URL.createObjectURL(await response.blob());
      image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
    }).catch(none);
  } else {
    image.src = source;
  }
  return tile;
}

/** Ways to see what past clicks did to an ad: what they add to its rate, and, where the network has attention, its weights. */
function waysOf({ rows, candidates: [candidate] }) {
  const adds = {
    name: "raises", title: "What it adds", values: candidate.raises, least: 0.0005, number: points, unit: " points",
    about: "What each past click adds to the rate, in points: the rate less what it would be without that click.",
    none: "No single past click changes it by a twentieth of a point.",
  };
  const what = { image: "pictures", ids: "ids" };
  const looks = (candidate.attention ?? []).filter(({ weights }) => weights?.length === rows.length && rows.length > 0)
    .map(({ over, weights }) => ({
      name: `attention-${over}`, title: `Attention to ${what[over] ?? over}`, values: weights, least: 0.005,
      number: (weight) => weight.toFixed(2).replace("-", "−"), unit: "",
      about: "The weights the network gives past clicks when it looks at this ad. They need not add up to 1.",
      none: "The network gives no past click any weight.",
    }));
  return [adds, ...looks];
}

export class Reasons {
  constructor(parts) {
    Object.assign(this, { parts, by: "raises", shown: null, pinned: false, marks: () => {}, seek: () => {}, leave: () => {} });
    parts.whole.addEventListener("click", () => {
      parts.history.classList.add("whole");
      parts.whole.hidden = true;
    });
  }

  /** Begins with a page view; `explain(column, place)` asks the server. */
  open(page, model, explain) {
    const { history, whole, why } = this.parts;
    Object.assign(this, { page, explain, shown: null, pinned: false, answers: new Map() });
    const { item = [], time } = page.user?.behaviors ?? {};
    const newest = item.map((_, row) => row);
    if (time) newest.sort((a, b) => time[b] - time[a]);
    this.tiles = [];
    history.classList.remove("whole");
    history.replaceChildren(...newest.map((row) => {
      const raise = h("span", { class: "raise" });
      const when = time ? new Date(1000 * time[row]).toLocaleString() : undefined;
      const tile = h("li", { title: [item[row], when].filter(Boolean).join(", ") },
        picture(model, item[row]), h("span", { class: "unseen" }, String(item[row])), raise);
      this.tiles[row] = { tile, raise };
      return tile;
    }));
    document.getElementById("history-label").textContent = item.length === 0
      ? "No clicks before: the ranking knows only the ads and the hour."
      : `Clicked before, newest first`;
    whole.hidden = item.length <= SHOWN;
    whole.textContent = `All ${item.length}`;
    why.hidden = true;
  }

  /** A new version of a column's model answers otherwise. */
  forget(column) {
    for (const key of this.answers.keys()) {
      if (key.startsWith(`${column.index}/`)) this.answers.delete(key);
    }
  }

  /** Shows why; `how` is `hover`, `focus` or `click`, which holds the explanation until another click. */
  async show(column, place, how) {
    if (how === "hover" && this.pinned) return;
    const same = this.shown?.column === column && this.shown.place === place;
    if (how === "click") this.pinned = !(same && this.pinned);
    if (how === "focus" && !same) this.pinned = false;
    const wanted = { column, place };
    this.shown = wanted;
    this.marks(column, place, this.pinned);
    const key = `${column.index}/${place}`;
    const { answers } = this;
    if (!answers.has(key)) answers.set(key, this.explain(column, place));
    try {
      const answer = await answers.get(key);
      if (this.shown !== wanted) return;
      this.#draw(column, place, answer);
      if (this.pinned) this.seek(column, place);
    } catch (problem) {
      answers.delete(key);
      if (!(problem instanceof Problem)) throw problem;
      if (this.shown === wanted) this.#refused(column, place, problem);
    }
  }

  /** Shows nothing; who was in the explanation is back at the ad. */
  close() {
    const inside = this.parts.why.contains(document.activeElement) && this.shown;
    if (inside) this.leave(inside.column, inside.place);
    this.shown = null;
    this.pinned = false;
    this.parts.why.hidden = true;
    this.#paint([], { values: [] });
    this.marks(null, null, false);
  }

  #refused(column, place, problem) {
    this.#paint([], { values: [] });
    this.parts.why.hidden = false;
    this.parts.why.replaceChildren(
      ...this.#head(column, place), h("p", { class: "notice", role: "alert" }, problem.detail));
  }

  #head(column, place) {
    const item = this.page.candidates.item[place];
    return [h("header", {},
      picture(column.model, item),
      h("div", {}, h("h3", { id: "why-title" }, `Why ${item}?`), h("p", { class: "soft" }, `by ${column.model}, version ${column.version}`)),
      h("button", { type: "button", class: "close", "aria-label": "Close the explanation", onclick: () => this.close() }, "×"))];
  }

  #draw(column, place, answer) {
    const [candidate] = answer.candidates;
    const ways = waysOf(answer);
    const way = ways.find(({ name }) => name === this.by) ?? ways[0];
    this.#paint(answer.rows, way);
    const strongest = answer.rows.map((row, at) => ({ row, value: way.values[at] }))
      .filter(({ value }) => Math.abs(value) >= way.least)
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, NAMED);
    const { item } = this.page.user?.behaviors ?? { item: [] };
    const without = candidate.ctr_without_history;
    const sentence = [
      h("b", {}, percent(candidate.ctr)), " will click; ", h("b", {}, percent(without)), " if nothing were known of the past.",
    ];
    const list = strongest.map(({ row, value }) => {
      const side = value > 0 ? "up" : "down";
      const bar = h("span", { class: `pull ${side}` });
      bar.style.setProperty("--share", Math.abs(value) / Math.abs(strongest[0].value));
      return h("li", {}, picture(column.model, item[row]), h("span", { class: "item" }, String(item[row])),
        h("span", { class: "lane" }, bar), h("span", { class: `number ${side}` }, way.number(value)));
    });
    this.parts.why.hidden = false;
    this.parts.why.replaceChildren(
      ...this.#head(column, place), h("p", {}, ...sentence),
      ...(ways.length > 1 ? [this.#switch(ways, way)] : []),
      list.length > 0 ? h("ol", {}, ...list) : h("p", { class: "soft" }, way.none),
      h("p", { class: "soft fine" }, way.about));
    const most = strongest.map(({ row, value }) => `${item[row]} ${way.number(value)}${way.unit}`);
    this.parts.say.textContent = `${this.page.candidates.item[place]} by ${column.model}: ${percent(candidate.ctr)}, `
      + `${percent(without)} without the past. ${most.length > 0 ? `Most: ${most.slice(0, 3).join(", ")}.` : way.none}`;
  }

  /** Chooses how to see it; the choice holds for the next ads. */
  #switch(ways, chosen) {
    const { column, place } = this.shown;
    const choose = async ({ name }) => {
      this.by = name;
      await this.show(column, place, "switch");
      this.parts.why.querySelector("input:checked")?.focus();
    };
    return h("fieldset", { class: "ways" }, h("legend", { class: "unseen" }, "Show"), ...ways.map((way) => h("label", {},
      h("input", { type: "radio", name: "by", value: way.name, checked: way === chosen, onchange: () => choose(way) }), way.title)));
  }

  /** Rings on the history: a value for each of `rows`, as parts of the largest. */
  #paint(rows, { values, least, number }) {
    const most = Math.max(...values.map(Math.abs), 0);
    this.parts.history.classList.toggle("explained", rows.length > 0);
    for (const { tile, raise } of this.tiles ?? []) {
      tile.className = "";
      raise.textContent = "";
    }
    rows.forEach((row, at) => {
      const { tile, raise } = this.tiles[row];
      const value = values[at];
      const share = most > least ? Math.abs(value) / most : 0;
      tile.className = value > 0 ? "up" : "down";
      tile.style.setProperty("--share", share);
      tile.classList.toggle("weak", share < 0.08);
      if (Math.abs(value) >= least) raise.textContent = number(value);
    });
  }
}
