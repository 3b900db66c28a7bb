// Ranked ads in one column per model, and lines from the places of one to those of the other.

import { h, mayMove } from "../docs/page.js";
import { picture } from "./explain.js";

const percent = (rate) => `${(100 * rate).toFixed(1)} %`;
const MOVE_MS = 320;

function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** What a model looks at, in words. */
function looks(spec) {
  const pictures = { ad: "ids and the ad's picture", behavior: "ids and pictures of past clicks", joint: "ids and all pictures" };
  return pictures[spec?.images] ?? "ids alone";
}

/** What a model did not know of this page view, in words; nothing if it knew all. */
function lacks({ users, items, images }) {
  const parts = [[users, "user"], [items, "item"], [images, "picture"]].filter(([list]) => list.length > 0);
  const words = parts.map(([list, what]) => `${list.length} ${what}${list.length === 1 ? "" : "s"}`);
  return words.length > 0 ? `Does not know ${words.join(", ")}` : "";
}

export class Board {
  /** `on.point(column, place)`, `on.bid(place, bid)`, `on.retry()`. */
  constructor(root, on) {
    Object.assign(this, { root, on });
    new ResizeObserver(() => this.#drawLinks()).observe(root);
  }

  /** Begins with a page view whose columns have no rates yet. */
  open(page, columns, bids) {
    Object.assign(this, { page, columns, bids, marked: null });
    this.parts = columns.map(() => {
      const title = h("h2", {});
      const about = h("p", { class: "soft" });
      const list = h("ol", { class: "list", "aria-busy": "true" });
      const column = h("section", { class: "column" }, h("header", {}, title, about), list);
      return { column, title, about, list, cards: [] };
    });
    columns.forEach((column) => this.#name(column));
    for (const { list } of this.parts) {
      list.replaceChildren(...page.candidates.item.slice(0, 12).map(() => h("li", { class: "ad empty" })));
    }
    this.links = svg("svg", { class: "links", "aria-hidden": "true" });
    this.paths = page.candidates.item.map(() => svg("path", {}));
    this.links.append(...this.paths);
    const sections = this.parts.map(({ column }) => column);
    this.root.classList.toggle("two", columns.length === 2);
    this.root.replaceChildren(...(columns.length === 2 ? [sections[0], this.links, sections[1]] : sections));
    this.#drawLinks();
  }

  /** The places of a column's candidates, best first: bid times rate, equal ones as in the request. */
  order(column) {
    const ecpm = this.#ecpm(column);
    return ecpm.map((_, place) => place).sort((a, b) => ecpm[b] - ecpm[a]);
  }

  #ecpm(column) {
    return column.ctr.map((rate, place) => rate * this.bids[place]);
  }

  #name(column) {
    const { title, about } = this.parts[column.index];
    const version = column.version === null ? "" : h("small", {}, ` version ${column.version}`);
    title.replaceChildren(column.model, version);
    const notes = column.card ? [looks(column.card.spec), lacks(column.missing)].filter((note) => note) : [column.problem ? "" : "…"];
    about.textContent = notes.join(" · ");
  }

  /** Shows a column as it is now: rates, an order, or a problem. */
  show(column) {
    const { list, cards } = this.parts[column.index];
    this.#name(column);
    list.removeAttribute("aria-busy");
    if (column.problem) {
      cards.length = 0;
      const { title, detail } = column.problem;
      const again = h("button", { type: "button", onclick: () => this.on.retry() }, "Try again");
      list.replaceChildren(h("li", { class: "notice", role: "alert" }, h("b", {}, title), h("p", {}, detail), again));
      this.#drawLinks();
      return;
    }
    if (cards.length === 0) {
      cards.push(...this.page.candidates.item.map((item, place) => this.#card(column, item, place)));
      list.replaceChildren();
    }
    const order = this.order(column);
    this.#arrange(list, order.map((place) => cards[place].node));
    this.columns.forEach((other) => other.ctr && !other.problem && this.#update(other));
    this.#drawLinks();
  }

  #card(column, item, place) {
    const rank = h("span", { class: "rank" });
    const move = h("span", { class: "move" });
    const rate = h("b", {});
    const bar = h("span", { class: "bar" });
    const ecpm = h("b", {});
    const bid = h("input", {
      type: "number", min: 0, step: "any", inputmode: "decimal", "aria-label": `Bid for ${item}`,
      oninput: () => this.#bid(bid, column, place),
      onchange: () => { bid.value = this.bids[place]; },
    });
    bid.value = this.bids[place];
    const pick = h("button", {
      type: "button", class: "pick", "aria-pressed": "false", "aria-controls": "why",
      onclick: () => this.on.point(column, place, "click"),
      onfocus: () => this.on.point(column, place, "focus"),
      onkeydown: (event) => this.#step(event, column, place),
    },
      rank, h("span", { class: "shot" }, picture(column.model, item)),
      h("span", { class: "name" }, h("span", { class: "item" }, String(item)), move),
      h("span", { class: "rate" }, h("span", { class: "what" }, "pCTR"), rate, h("span", { class: "rail" }, bar)));
    const node = h("li", {
      class: "ad",
      onpointerenter: (event) => event.pointerType === "mouse" && this.on.point(column, place, "hover"),
    },
      pick, h("label", { class: "bid" }, h("span", { class: "what" }, "bid"), bid),
      h("p", { class: "ecpm" }, h("span", { class: "what" }, "eCPM"), ecpm));
    return { node, pick, rank, move, rate, bar, bid, ecpm };
  }

  /** A bid as it is typed; one that is none yet waits. */
  #bid(input, column, place) {
    const bid = input.value === "" ? Number.NaN : Number(input.value);
    const good = Number.isFinite(bid) && bid >= 0;
    input.setAttribute("aria-invalid", String(!good));
    if (!good) return;
    for (const { index } of this.columns) {
      const other = this.parts[index].cards[place]?.bid;
      if (other && index !== column.index) other.value = bid;
    }
    this.on.bid(place, bid);
  }

  /** Shows bids that were set from elsewhere. */
  bidsChanged() {
    for (const { cards } of this.parts) {
      cards.forEach(({ bid }, place) => {
        bid.value = this.bids[place];
        bid.removeAttribute("aria-invalid");
      });
    }
  }

  /** Numbers, ranks, and how far from the baseline's. */
  #update(column) {
    const { cards } = this.parts[column.index];
    const order = this.order(column);
    const ecpm = this.#ecpm(column);
    const [left] = this.columns;
    const before = left !== column && left.ctr && !left.problem ? this.order(left) : null;
    // One measure for both columns.
    const top = Math.max(...this.columns.flatMap(({ ctr }) => ctr ?? []), 1e-9);
    order.forEach((place, rank) => {
      const card = cards[place];
      const rate = percent(column.ctr[place]);
      card.rank.textContent = rank + 1;
      card.rate.textContent = rate;
      card.bar.style.setProperty("--share", column.ctr[place] / top);
      card.ecpm.textContent = ecpm[place].toFixed(3);
      const up = before === null ? 0 : before.indexOf(place) - rank;
      card.move.textContent = up === 0 ? "" : `${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`;
      card.move.className = `move ${up > 0 ? "up" : "down"}`;
      const moved = up === 0 ? "" : `, ${Math.abs(up)} ${up > 0 ? "higher" : "lower"} than by ${left.model}`;
      const label = `${rank + 1}. ${this.page.candidates.item[place]}, rate ${rate}, eCPM ${card.ecpm.textContent}${moved}`;
      card.pick.setAttribute("aria-label", label);
    });
  }

  /** Puts the cards in order and lets them slide there. One that has the focus stays where it is, and the others go around it. */
  #arrange(list, nodes) {
    const now = [...list.children];
    if (now.length === nodes.length && now.every((node, rank) => node === nodes[rank])) return;
    const tops = new Map(now.map((node) => [node, node.getBoundingClientRect().top]));
    const fixed = nodes.findIndex((node) => node.contains(document.activeElement));
    if (fixed < 0) {
      list.replaceChildren(...nodes);
    } else {
      nodes[fixed].before(...nodes.slice(0, fixed));
      nodes[fixed].after(...nodes.slice(fixed + 1));
    }
    if (now.length === 0 || !mayMove()) return;
    for (const node of nodes) {
      const by = tops.get(node) - node.getBoundingClientRect().top;
      const steps = [{ transform: `translateY(${by}px)` }, { transform: "none" }];
      if (by !== 0) node.animate(steps, { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
    const end = performance.now() + MOVE_MS;
    const follow = () => {
      this.#drawLinks();
      if (performance.now() < end) requestAnimationFrame(follow);
    };
    requestAnimationFrame(follow);
  }

  /** One line per candidate, from its place on the left to that on the right. */
  #drawLinks() {
    if (this.columns?.length !== 2) return;
    const frame = this.links.getBoundingClientRect();
    const [left, right] = this.parts;
    const orders = this.columns.map((column) => (column.ctr && !column.problem ? this.order(column) : null));
    const whole = orders.every((order) => order !== null) && left.cards.length > 0 && right.cards.length > 0;
    this.links.setAttribute("viewBox", `0 0 ${Math.max(frame.width, 1)} ${Math.max(frame.height, 1)}`);
    this.paths.forEach((line, place) => {
      if (!whole) return line.removeAttribute("d");
      const [from, to] = [left, right].map(({ cards }) => {
        const { top, height } = cards[place].node.getBoundingClientRect();
        return top + height / 2 - frame.top;
      });
      const up = orders[0].indexOf(place) - orders[1].indexOf(place);
      const far = frame.width;
      line.setAttribute("d", `M0 ${from}C${far * 0.6} ${from} ${far * 0.4} ${to} ${far} ${to}`);
      line.setAttribute("class", [up > 0 ? "up" : up < 0 ? "down" : "", this.marked?.place === place ? "marked" : ""].join(" ").trim());
    });
  }

  /** Marks the ad that is being explained, and the same one in the other column. */
  mark(column, place, pinned) {
    this.marked = column && { place };
    for (const { index } of this.columns) {
      this.parts[index].cards.forEach((card, other) => {
        const here = column?.index === index && other === place;
        card.node.classList.toggle("asked", here);
        card.node.classList.toggle("same", column !== null && !here && other === place);
        card.pick.setAttribute("aria-pressed", String(here && pinned));
      });
    }
    this.#drawLinks();
  }

  /** Brings the card of an ad into view, if something lies over it. */
  seek(column, place) {
    const { node } = this.parts[column.index].cards[place];
    node.scrollIntoView({ block: "nearest", behavior: mayMove() ? "smooth" : "auto" });
  }

  /** Gives the focus back to an ad. */
  focus(column, place) {
    this.parts[column.index].cards[place]?.pick.focus({ preventScroll: true });
  }

  /** Arrows go up and down a column, and across to the same ad. */
  #step(event, column, place) {
    const order = this.order(column);
    const rank = order.indexOf(place);
    const [steps, sides] = [{ ArrowDown: 1, ArrowUp: -1 }, { ArrowLeft: 0, ArrowRight: 1 }];
    let target;
    if (event.key in steps) target = this.parts[column.index].cards[order[rank + steps[event.key]]];
    else if (event.key === "Home") target = this.parts[column.index].cards[order[0]];
    else if (event.key === "End") target = this.parts[column.index].cards[order.at(-1)];
    else if (event.key in sides) target = this.parts[sides[event.key]]?.cards[place];
    else return;
    event.preventDefault();
    target?.pick.focus();
  }
}
