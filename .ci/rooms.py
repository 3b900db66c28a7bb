#!/usr/bin/env python3
"""Holds the direction of imports: no circle of crates, none of modules inside a crate.

usage: .ci/rooms.py [CRATE]     with a crate: its modules by floor, each with what it imports

A module imports what its `use` declarations and `crate::` paths name; a re-export counts, tests do not. A module and those below it
are one another's as any others: a parent may import its children, or they it, not both.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def code(file):
    """The file without comments and without its tests."""
    text = re.sub(r"//[^\n]*", "", file.read_text(encoding="utf-8"))
    return re.split(r"#\[cfg\((?:test|all\(test)[^\n]*\]\s*(?:#\[[^\n]*\]\s*)*mod \w+ \{", text)[0]


def module(source, file):
    """The path of a file's module: () of lib.rs, ("a", "b") of a/b.rs and a/b/mod.rs."""
    parts = list(file.relative_to(source).with_suffix("").parts)
    if parts[-1] in ("mod", "lib", "main"):
        parts.pop()
    if parts and parts[-1].endswith("_absent"):
        parts[-1] = parts[-1].removesuffix("_absent")
    return tuple(parts)


def expanded(path):
    """The paths of `a::{b, c::{d, e}}`."""
    match = re.fullmatch(r"(.*?)\{(.*)\}", path, re.S)
    if not match:
        return [path]
    depth, part, parts = 0, "", []
    for letter in match[2]:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [name for part in [*parts, part] if part.strip() for name in expanded(match[1] + part.strip())]


def imports(text, here, modules):
    """Paths from the root of the crate that the text names."""
    found = []
    # A parent may leave `self::` out.
    for child in {name[-1] for name in modules if here and name[:-1] == here}:
        text = re.sub(rf"(?<![\w:]){child}::", f"self::{child}::", text)
    for use in re.findall(r"\buse\s+((?:crate|super|self)::[^;]*);", text):
        found += expanded(re.sub(r"\s+as\s+\w+", "", use))
    rest = re.sub(r"\buse\s+[^;]*;", "", text)
    found += re.findall(r"\b(?:crate|super|self)(?:::\w+)+", rest)
    for path in found:
        parts = [part.strip() for part in re.sub(r"\s", "", path).split("::")]
        start = list(here)
        if parts[0] == "crate":
            start = []
        while parts and parts[0] in ("crate", "self", "super"):
            if parts.pop(0) == "super":
                start = start[:-1]
        yield tuple(start + parts)


def graph(source):
    files = [file for file in source.rglob("*.rs") if "generated" not in file.parts and file.name != "tests.rs"]
    modules = {module(source, file) for file in files}
    arrows = {name: set() for name in modules}
    for file in files:
        here = module(source, file)
        for path in imports(code(file), here, modules):
            while path and path not in modules:
                path = path[:-1]
            # What stands in the root of a crate are re-exports: they lead nowhere new.
            if path and path != here:
                arrows[here].add(path)
    arrows.pop((), None)
    return arrows


def circles(arrows):
    """Groups of modules that reach one another (Tarjan)."""
    index, low, stack, groups = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node):]
            del stack[stack.index(node):]
            if len(group) > 1:
                groups.append(group)

    sys.setrecursionlimit(10_000)
    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return groups


def crates():
    arrows = {}
    for manifest in sorted(ROOT.glob("crates/*/Cargo.toml")):
        dependencies = manifest.read_text().split("[dev-dependencies]")[0]
        arrows[manifest.parent.name] = set(re.findall(r"^ams-([a-z]+)", dependencies, re.M))
    return arrows


def wings(arrows):
    """Modules directly below the root, each with all that is in it."""
    tops = {}
    for name, others in arrows.items():
        tops.setdefault(name[:1], set()).update(other[:1] for other in others if other[:1] != name[:1])
    return tops


def show(crate):
    arrows = graph(ROOT / "crates" / crate / "src")
    for name in sorted(arrows):
        print("::".join(name), "->", ", ".join("::".join(other) for other in sorted(arrows[name])) or "nothing")


def main():
    if len(sys.argv) > 1:
        return show(sys.argv[1])
    faults = []
    for group in circles(crates()):
        faults.append(f"crates import one another: {', '.join(group)}")
    for source in sorted(ROOT.glob("crates/*/src")):
        arrows = graph(source)
        for groups in (circles(arrows), circles(wings(arrows))):
            for group in groups:
                names = ", ".join("::".join(name) for name in sorted(group))
                faults.append(f"{source.parent.name}: modules import one another: {names}")
    print("\n".join(faults))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
