// JSON schemas in words, values that fit them, and JSON to read.

import { h } from "./page.js";

/** A function that follows `$ref` within `root`. */
export function resolver(root) {
  return (value) => {
    const seen = new Set();
    let now = value;
    while (now?.$ref !== undefined && !seen.has(now.$ref)) {
      seen.add(now.$ref);
      now = now.$ref.replace(/^#\//, "").split("/").reduce((at, key) => at?.[key], root);
    }
    return now ?? {};
  };
}

const between = (list, separator) => list.flatMap((item, at) => (at === 0 ? [item] : [separator, item]));

/** What a schema allows, in a few words; named schemas are links. */
export function typeOf(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return h("a", { href: `#schema-${name}` }, name);
  }
  if (schema.const !== undefined) return h("code", {}, JSON.stringify(schema.const));
  if (schema.enum) return h("span", {}, ...between(schema.enum.map((value) => h("code", {}, JSON.stringify(value))), " | "));
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return h("span", {}, ...between(choices.map(typeOf), " | "));
  const types = [schema.type ?? "anything"].flat();
  return h("span", {}, ...between(types.map((type) => single(type, schema)), " | "), limits(schema));
}

function single(type, schema) {
  if (type === "array") return h("span", {}, "list of ", typeOf(schema.items));
  if (type === "object" && typeof schema.additionalProperties === "object" && !schema.properties) {
    return h("span", {}, "map to ", typeOf(schema.additionalProperties));
  }
  return type;
}

/** What JavaScript knows of a number that its whole numbers do not reach. */
const figure = (value) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential(2) : value);

function limits({ minimum, maximum, exclusiveMinimum, exclusiveMaximum, minItems, maxItems, format, default: usual }) {
  const told = [
    [minimum, "≥"], [exclusiveMinimum, ">"], [maximum, "≤"], [exclusiveMaximum, "<"], [minItems, "items ≥"], [maxItems, "items ≤"],
    [format, ""], [usual, "usually"],
  ].filter(([value]) => value !== undefined).map(([value, what]) => `${what} ${figure(value)}`.trim());
  return told.length === 0 ? null : h("small", { class: "soft" }, ` ${told.join(", ")}`);
}

/** A value that fits a schema. */
export function exampleOf(schema, resolve, depth = 0) {
  const at = resolve(schema);
  if (at.example !== undefined) return at.example;
  if (at.default !== undefined) return at.default;
  if (at.const !== undefined) return at.const;
  if (at.enum) return at.enum[0];
  const choices = at.anyOf ?? at.oneOf;
  if (choices) return exampleOf(choices.find((choice) => choice.type !== "null") ?? choices[0], resolve, depth);
  switch ([at.type].flat()[0]) {
    case "object": {
      if (depth > 6) return {};
      const keys = Object.entries(at.properties ?? {});
      return Object.fromEntries(keys.map(([key, value]) => [key, exampleOf(value, resolve, depth + 1)]));
    }
    case "array": return depth > 6 ? [] : [exampleOf(at.items ?? {}, resolve, depth + 1)];
    case "integer":
    case "number": return Math.max(at.minimum ?? 1, 1);
    case "boolean": return false;
    case "string": return "text";
    default: return null;
  }
}

const WIDE = 76;

/** JSON with what fits a line on one. */
export function pretty(value, margin = "") {
  const flat = JSON.stringify(value);
  if (value === null || typeof value !== "object" || flat.length + margin.length <= WIDE) {
    return flat.replace(/("(?:[^"\\]|\\.)*")|([:,])/g, (all, text, mark) => text ?? `${mark} `);
  }
  const inner = `${margin}  `;
  if (!Array.isArray(value)) {
    const lines = Object.entries(value).map(([key, item]) => `${inner}${JSON.stringify(key)}: ${pretty(item, inner)}`);
    return `{\n${lines.join(",\n")}\n${margin}}`;
  }
  // Short items share lines.
  const lines = [];
  for (const item of value.map((item) => pretty(item, inner))) {
    const last = lines.at(-1);
    if (last !== undefined && !item.includes("\n") && !last.includes("\n") && last.length + item.length + inner.length < WIDE) {
      lines[lines.length - 1] = `${last}, ${item}`;
    } else {
      lines.push(item);
    }
  }
  return `[\n${inner}${lines.join(`,\n${inner}`)}\n${margin}]`;
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;

/** JSON with its kinds of values told apart. */
export function draw(text) {
  const out = document.createDocumentFragment();
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    const [all, string, colon, word] = found;
    const kind = string ? (colon ? "key" : "string") : word ? "word" : "figure";
    out.append(text.slice(end, found.index), h("span", { class: kind }, string ?? all), string && colon ? colon : "");
    end = found.index + all.length;
  }
  out.append(text.slice(end));
  return out;
}
