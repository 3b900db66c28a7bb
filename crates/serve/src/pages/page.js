// What all pages use: elements, questions to the server, and the token they may need.

/** An element. Texts become text nodes, never markup; a key that begins with `on` is a listener. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** What the server, or the way to it, says instead of an answer. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail);
    Object.assign(this, { status, title, detail });
  }
}

// Nowhere but here: gone with the page.
let token = "";

/** Sets the token that questions are asked with; empty: none. */
export function setToken(value) {
  token = value;
}

/** Whether questions are asked with a token. */
export function hasToken() {
  return token !== "";
}

/** Asks as it is told, and gives back what came, whatever it is. Without a server to answer: a `Problem`. */
export async function send(method, path, body) {
  const headers = {};
  if (token !== "") headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, body, cache: "no-store" });
  } catch {
    throw new Problem(0, "No answer", "The server does not answer. Is it still running?");
  }
}

async function problemOf(response) {
  const text = await response.text();
  try {
    const { title, detail } = JSON.parse(text);
    return new Problem(response.status, title, detail);
  } catch {
    return new Problem(response.status, `Status ${response.status}`, text.slice(0, 200));
  }
}

/** The answer's response, if it is a success; asks for a token where one is needed. */
export async function success(method, path, body) {
  for (;;) {
    const used = token;
    const response = await send(method, path, body);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    // Somebody else may have asked for it meanwhile.
    if (token === used && !(await askForToken(problem, used !== ""))) throw problem;
  }
}

/** The answer's JSON. */
export async function ask(path, body) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return (await success(text === undefined ? "GET" : "POST", path, text)).json();
}

let asking = null;

/** Asks the person for a token, once for all who wait for it; whether there is one. */
function askForToken(problem, again) {
  asking ??= new Promise((resolve) => {
    const input = h("input", {
      type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true,
    });
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const submit = (event) => {
      event.preventDefault();
      setToken(input.value.trim());
      dialog.close("given");
    };
    const dialog = h("dialog", { class: "token", "aria-labelledby": "token-title" },
      h("form", { onsubmit: submit },
        h("h2", { id: "token-title" }, "This server asks for a token"),
        h("p", { role: again ? "alert" : undefined }, again ? `${problem.detail}. Try another one.`
          : "One of those it was started with. It stays in this page's memory, and is forgotten with it."),
        h("label", { for: "token" }, "Token"), input,
        h("div", { class: "buttons" }, cancel, h("button", { class: "main" }, "Go on"))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      asking = null;
      resolve(dialog.returnValue === "given");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/** Whether things may move. */
export function mayMove() {
  return !matchMedia("(prefers-reduced-motion: reduce)").matches;
}
