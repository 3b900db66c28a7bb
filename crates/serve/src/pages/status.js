// The models of the folder, as `ams status` tells of them, and what this server makes of them.

import { Problem, ask, h } from "../docs/page.js";

const at = (id) => document.getElementById(id);

const signed = (value) => (value < 0 ? "" : "+") + value.toFixed(4);

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Bytes as people read them. */
function size(bytes) {
  let unit = 0;
  for (; bytes >= 999.5 && unit + 1 < UNITS.length; unit += 1) bytes /= 1000;
  return `${bytes.toFixed(unit === 0 || bytes >= 99.95 ? 0 : 1)} ${UNITS[unit]}`;
}

const days = (count) => `${count} ${count === 1 ? "day" : "days"}`;

/** An instant, and how long ago it was. */
function when(seconds) {
  if (seconds === null) return "–";
  const date = new Date(seconds * 1000);
  const hours = Math.max(0, Math.floor((Date.now() - date) / 3600000));
  const ago = hours < 48 ? `${hours} h ago` : `${days(Math.floor(hours / 24))} ago`;
  const text = date.toISOString().slice(0, 16).replace("T", " ");
  return h("time", { datetime: date.toISOString(), title: `${text} UTC` }, `${text}, ${ago}`);
}

/** What the gate found of a metric. */
function gate({ compared, held_against: against }) {
  const gauc = compared.find(({ metric }) => metric === "GAUC");
  if (!gauc || gauc.gain === undefined) return "–";
  const within = gauc.interval ? ` [${gauc.interval.map(signed).join(", ")}]` : "";
  const than = against === null ? "" : ` than ${against}`;
  return `${signed(gauc.gain)}${within}${than}`;
}

function why({ reasons, withdrawn, problem }) {
  if (problem) return problem;
  if (withdrawn) return ["taken back by ", withdrawn.by, ", ", when(withdrawn.at)];
  return reasons.join("; ");
}

function row(version) {
  return h("tr", {},
    h("th", { scope: "row" }, String(version.version)),
    h("td", {}, h("span", { class: `state ${version.state}` }, version.state)),
    h("td", {}, version.day ?? "–"),
    h("td", {}, when(version.published)),
    h("td", { class: "number" }, gate(version)),
    h("td", { class: "number" }, size(version.bytes)),
    h("td", { class: "number" }, String(version.deltas)),
    h("td", {}, version.calibrated ? "yes" : "no"),
    h("td", { class: "why" }, why(version)));
}

const HEAD = ["Version", "State", "Data of", "Published", "GAUC gain", "Size", "Deltas", "Calibrated", "Why"];

/** What is to be said of a model in a line. */
function line({ serving, pinned, unloaded, newest_day: newest, days_behind: behind, versions }) {
  if (unloaded) return ["Not served: unloaded by ", unloaded.by, ", ", when(unloaded.at), "."];
  if (serving === null) return ["No version serves."];
  const day = versions.find(({ version }) => version === serving)?.day;
  const age = day === null || day === undefined ? "" : `, with data of ${day}`;
  const late = newest === null || behind === null ? "" :
    behind > 0 ? `, ${days(behind)} behind the newest day ${newest}` : ", the newest day";
  return [`Version ${serving} serves${pinned ? " (pinned)" : ""}${age}${late}.`];
}

/** What somebody should look at. */
function notices(model, here) {
  const said = [];
  const { last_day: last, last_refused: refused, problems } = model;
  if (last && last.outcome === "refused") {
    said.push(`The last day, ${last.day}, was refused: ${last.reasons.join("; ")}.`);
  } else if (refused) {
    said.push(`The last refused day is ${refused.day}: ${refused.reasons.join("; ")}.`);
  }
  said.push(...problems);
  if (here) {
    if (here.live !== model.serving) said.push(`This server serves ${here.live === null ? "no version" : `version ${here.live}`}.`);
    for (const [version, reason] of Object.entries(here.refused)) said.push(`This server refuses version ${version}: ${reason}`);
  }
  const urgent = (last && last.outcome === "refused") || problems.length > 0;
  return said.map((text, place) => h("p", { class: urgent && place === 0 ? "notice" : "notice plain" }, text));
}

/** How a canary does that gets more users by itself, as this server counted. */
function progress({ canary, rules, calibration, interval, serving_calibration: serving }) {
  const rate = (value) => (value === null ? "unknown" : value.toFixed(3));
  const within = interval ? ` [${interval.map(rate).join(", ")}]` : "";
  return ` Of this step ${canary.impressions} of ${rules.impressions} impressions have an outcome, with ` +
    `${rate(calibration)}${within} times as many clicks predicted; of the version that serves it is ${rate(serving)}.`;
}

function section(model, here) {
  const share = model.canary;
  const canary = share ? h("p", {}, `Version ${share.version} answers ${share.percent} of 100 users.`,
    here?.promotion ? progress(here.promotion) : "") : null;
  const table = h("div", { class: "wide" }, h("table", {},
    h("caption", {}, `Versions of ${model.model}`),
    h("thead", {}, h("tr", {}, ...HEAD.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...model.versions.map(row))));
  return h("section", { class: "model", "aria-label": model.model },
    h("h2", {}, model.model), h("p", {}, ...line(model)), canary, ...notices(model, here),
    model.versions.length > 0 ? table : null);
}

async function look() {
  const main = at("main");
  main.setAttribute("aria-busy", "true");
  try {
    const { models, here } = await ask("admin/overview");
    const served = models.filter(({ serving }) => serving !== null).length;
    at("about").textContent = `${served} of ${models.length} models serve.`;
    const of = (model) => here.find((other) => other.model === model.model);
    main.replaceChildren(...models.map((model) => section(model, of(model))));
    if (models.length === 0) main.replaceChildren(h("p", { class: "notice plain" }, "There is no model in the folder."));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    at("about").textContent = "";
    main.replaceChildren(h("p", { class: "notice", role: "alert" }, `${error.title}: ${error.detail}`));
  } finally {
    main.setAttribute("aria-busy", "false");
  }
}

at("again").addEventListener("click", look);
look();
