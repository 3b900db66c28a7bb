// The description at openapi.json, to read and to try.

import { Problem, h, send, setToken } from "./page.js";
import { draw, exampleOf, pretty, resolver, typeOf } from "./schema.js";

const at = (id) => document.getElementById(id);
const METHODS = ["get", "put", "post", "delete", "patch", "head", "options"];
const VERSION = "/versions/{version}";

let resolve;

/** What there is to try with: a served model and its examples, if this page may know. */
const known = { model: "", page: null };

/** All operations; one that exists for a version too is one with a version that may be left out. */
function operations({ paths }) {
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => {
      const { parameters = [], ...rest } = methods[method];
      const both = [...(methods.parameters ?? []), ...parameters].map((parameter) => resolve(parameter));
      return { path, method, ...rest, parameters: both, versioned: null };
    }));
  const find = (path, method) => all.find((other) => other.path === path && other.method === method);
  return all.filter((operation) => {
    if (!operation.path.includes(VERSION)) return true;
    const plain = find(operation.path.replace(VERSION, ""), operation.method);
    if (!plain) return true;
    const version = operation.parameters.find(({ name }) => name === "version");
    plain.versioned = operation.path;
    plain.parameters.splice(1, 0, { ...version, required: false, description: "The live one unless given." });
    return false;
  });
}

const group = ({ path }) => path.split("/")[1];
const idOf = ({ operationId, method, path }) => operationId ?? `${method}${path.replace(/\W+/g, "-")}`;

function pathText({ path, versioned }) {
  const parts = [];
  for (const piece of (versioned ?? path).split(/(\/versions\/\{version\}|\{\w+\})/)) {
    if (piece === VERSION && versioned) parts.push(h("span", { class: "maybe" }, `[${piece}]`));
    else if (piece.startsWith("{")) parts.push(h("span", { class: "hole" }, piece));
    else parts.push(piece, h("wbr"));
  }
  return h("code", { class: "path" }, ...parts);
}

function table(caption, head, rows) {
  return h("div", { class: "wide" }, h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows.map(([first, ...cells]) =>
      h("tr", {}, h("th", { scope: "row" }, first), ...cells.map((cell) => h("td", {}, cell)))))));
}

function described({ description, schema = {} }) {
  return [description ?? schema.description ?? ""];
}

function parameterTable({ parameters }) {
  if (parameters.length === 0) return null;
  const rows = parameters.map((parameter) => [
    h("code", {}, parameter.name, parameter.required ? h("span", { class: "must", title: "required" }, "*") : ""),
    parameter.in, typeOf(parameter.schema), described(parameter),
  ]);
  return table("Parameters", ["Name", "In", "Type", "Meaning"], rows);
}

function responseTable({ responses }) {
  const rows = Object.entries(responses).map(([status, response]) => {
    const { description, content = {} } = resolve(response);
    const kinds = Object.entries(content).map(([kind, { schema }]) => [schema ? typeOf(schema) : "", " ", h("small", { class: "soft" }, kind)]);
    return [h("span", { class: `status s${status[0]}` }, status), description, kinds.flat()];
  });
  return table("Answers", ["Status", "Meaning", "Body"], rows);
}

/** The operation's body, if it has one that is JSON. */
function bodySchema({ requestBody }) {
  return requestBody ? resolve(requestBody).content?.["application/json"]?.schema : undefined;
}

function exampleBody(schema) {
  const isPage = (schema.$ref ?? "").endsWith("/PageView");
  return pretty(isPage && known.page ? known.page : exampleOf(schema, resolve));
}

/** A form that asks the server. */
function tryIt(operation) {
  const id = idOf(operation);
  const schema = bodySchema(operation);
  const inputs = operation.parameters.map((parameter) => {
    const input = h("input", { id: `${id}-${parameter.name}`, required: parameter.required, spellcheck: "false", autocomplete: "off" });
    if (parameter.schema?.default !== undefined) input.placeholder = parameter.schema.default;
    const label = h("label", { for: input.id }, parameter.name, parameter.required ? h("span", { class: "must" }, "*") : "");
    return { parameter, input, row: h("div", { class: "field" }, label, input) };
  });
  const body = schema && h("textarea", { id: `${id}-body`, spellcheck: "false", rows: 9, autocomplete: "off" });
  const outcome = h("div", { class: "outcome", "aria-live": "polite" });
  const button = h("button", { class: "main" }, "Send");
  const fill = () => {
    for (const { parameter, input } of inputs) {
      if (["model", "pre_rank"].includes(parameter.name) && input.value === "") input.value = known.model;
    }
    if (body && (body.value === "" || body.value === body.dataset.offered)) {
      body.value = body.dataset.offered = exampleBody(schema);
    }
  };
  const address = () => {
    const version = inputs.find(({ parameter }) => parameter.name === "version")?.input.value.trim();
    let path = operation.versioned && version ? operation.versioned : operation.path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      const value = input.value.trim();
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (parameter.in === "query" && value !== "") query.set(parameter.name, value);
    }
    return path.slice(1) + (query.size > 0 ? `?${query}` : "");
  };
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    const begin = performance.now();
    try {
      const response = await send(operation.method.toUpperCase(), address(), body?.value);
      const text = await response.text();
      outcome.replaceChildren(...answer(response, text, performance.now() - begin));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      outcome.replaceChildren(h("p", { class: "notice" }, problem.detail));
    } finally {
      button.disabled = false;
      button.focus();
    }
  };
  const copy = h("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(curl(operation.method, new URL(address(), document.baseURI), body?.value));
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy as curl"; }, 1500);
  } }, "Copy as curl");
  const form = h("form", { class: "try", onsubmit: submit },
    ...inputs.map(({ row }) => row),
    body && h("div", { class: "field tall" }, h("label", { for: body.id }, "Body"), body),
    h("div", { class: "buttons" }, navigator.clipboard && copy, button), outcome);
  form.addEventListener("fill", fill);
  fill();
  return form;
}

/** The same question in a shell. */
function curl(method, url, body) {
  const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  let compact = body;
  try {
    compact = body === undefined ? undefined : JSON.stringify(JSON.parse(body));
  } catch { /* As it is, if it is no JSON. */ }
  const parts = ["curl -s", method === "get" || method === "post" ? "" : `-X ${method.toUpperCase()}`, quoted(url)];
  if (at("token").value !== "") parts.push("-H \"Authorization: Bearer $TOKEN\"");
  if (compact !== undefined) parts.push(`--json ${quoted(compact)}`);
  return parts.filter((part) => part !== "").join(" ");
}

function answer(response, text, ms) {
  const kind = (response.headers.get("Content-Type") ?? "").split(";")[0];
  const status = h("span", { class: `status s${String(response.status)[0]}` }, response.status);
  const line = h("p", {}, status, ` ${response.statusText} `, h("span", { class: "soft" }, `${kind} · ${text.length} characters · ${ms.toFixed(0)} ms`));
  let shown = text;
  try {
    shown = pretty(JSON.parse(text));
  } catch { /* Plain text. */ }
  const most = 100_000;
  const cut = shown.length > most ? `${shown.slice(0, most)}\n… ${shown.length - most} more` : shown;
  return [line, h("pre", { tabindex: 0, "aria-label": "The answer" }, draw(cut))];
}

function section(operation) {
  const { method, summary, description, security } = operation;
  const schema = bodySchema(operation);
  return h("section", { class: "operation", id: idOf(operation), "aria-labelledby": `${idOf(operation)}-name` },
    h("h3", { id: `${idOf(operation)}-name` }, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", pathText(operation)),
    h("p", { class: "says" }, summary ?? "", description ? ` ${description}` : ""),
    security?.length === 0 && h("p", { class: "soft" }, "Needs no token."),
    parameterTable(operation),
    schema && h("p", { class: "takes" }, h("b", {}, "Body "), typeOf(schema), " ", h("small", { class: "soft" }, "application/json"),
      resolve(schema).description && h("span", { class: "soft" }, ` ${resolve(schema).description}`)),
    h("details", {}, h("summary", {}, "Answers"), responseTable(operation)),
    h("details", { class: "trial" }, h("summary", {}, "Try it"), tryIt(operation)));
}

function schemaSection([name, schema]) {
  const { properties = {}, required = [], description } = schema;
  const rows = Object.entries(properties).map(([key, value]) => [
    h("code", {}, key, required.includes(key) ? h("span", { class: "must", title: "required" }, "*") : ""),
    typeOf(value), value.description ?? resolve(value).description ?? "",
  ]);
  return h("section", { class: "schema", id: `schema-${name}` },
    h("h3", {}, h("code", {}, name)), h("p", {}, description ?? ""),
    rows.length > 0 ? table(`Keys of ${name}`, ["Key", "Type", "Meaning"], rows) : h("p", { class: "type" }, typeOf(schema)));
}

/** Looks for a model to try with. Where a token is missing, the examples are made up. */
async function look() {
  try {
    const models = await send("GET", "v1/models");
    known.model = models.ok ? (await models.json()).find(({ version }) => version !== null)?.model ?? "" : "";
    if (known.model === "") return;
    const card = await send("GET", `v1/models/${encodeURIComponent(known.model)}`);
    known.page = card.ok ? (await card.json()).samples[0] ?? null : null;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
  }
}

async function start() {
  try {
    const response = await send("GET", "openapi.json");
    const described = await response.json();
    resolve = resolver(described);
    at("about").textContent = described.info.summary ?? "";
    const all = operations(described);
    await look();
    const groups = [...new Set(all.map(group))];
    const link = (operation) => h("li", {}, h("a", { href: `#${idOf(operation)}` },
      h("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()), " ", operation.operationId ?? operation.path));
    at("nav").replaceChildren(...groups.map((name) => h("div", {}, h("h2", {}, `/${name}`),
      h("ul", {}, ...all.filter((operation) => group(operation) === name).map(link)))),
      h("div", {}, h("h2", {}, "Schemas"), h("ul", {}, ...Object.keys(described.components?.schemas ?? {}).map((name) =>
        h("li", {}, h("a", { href: `#schema-${name}` }, name))))));
    at("main").replaceChildren(
      ...groups.map((name) => h("section", { "aria-label": `/${name}` }, h("h2", {}, `/${name}`),
        ...all.filter((operation) => group(operation) === name).map(section))),
      h("section", { "aria-label": "Schemas" }, h("h2", {}, "Schemas"), ...Object.entries(described.components?.schemas ?? {}).map(schemaSection)));
    if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    at("main").replaceChildren(h("p", { class: "notice", role: "alert" }, problem.detail ?? String(problem),
      " ", h("button", { type: "button", onclick: start }, "Try again")));
  }
  at("main").removeAttribute("aria-busy");
}

at("door").addEventListener("submit", (event) => event.preventDefault());
at("token").addEventListener("change", async () => {
  setToken(at("token").value.trim());
  await look();
  document.querySelectorAll("form.try").forEach((form) => form.dispatchEvent(new Event("fill")));
});
if (matchMedia("(max-width: 900px)").matches) at("contents").open = false;
at("demo").hidden = document.querySelector('meta[name="demo"]')?.content !== "yes";

start();
