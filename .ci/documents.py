#!/usr/bin/env python3
"""Holds the documents: widths, fences, links and anchors, and the width of comments in code.

usage: .ci/documents.py

Markdown has at most 120 columns but for tables and blocks; comments in Rust have at most 100, drawings in
them 120. A link inside the repository leads to a
file, and its anchor to a heading of that.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARKDOWN, COMMENT = 120, 100
FENCES = {"sh", "text", "json", "toml", "python", "yaml", "rust"}


def tracked(*patterns):
    names = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).exists()]


def anchor(heading):
    """What a heading is called in a link, as GitHub has it."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower().replace("`", "")
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def lines(page):
    """Number, text and whether it is inside a block, of every line but the fences."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = not inside
            yield number, line, "fence" if inside else "end"
        else:
            yield number, line, "block" if inside else "text"


def anchors(page):
    seen, found = {}, set()
    for _, line, kind in lines(page):
        if kind == "text" and (heading := re.match(r"#+ (.*)", line)):
            name = anchor(heading[1])
            seen[name] = seen.get(name, 0) + 1
            found.add(name if seen[name] == 1 else f"{name}-{seen[name] - 1}")
    return found


def faults_of_page(page):
    name = str(page.relative_to(ROOT))
    for number, line, kind in lines(page):
        if kind == "fence" and line.strip()[3:] not in FENCES:
            yield f"{name}:{number}: a block of {line.strip()[3:] or 'nothing'}, expected one of {', '.join(sorted(FENCES))}"
        if kind != "text":
            continue
        if len(line) > MARKDOWN and not line.lstrip().startswith(("|", "[![", "![")):
            yield f"{name}:{number}: {len(line)} columns, expected at most {MARKDOWN}"
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"[a-z]+:", target):
                continue
            place, _, heading = target.partition("#")
            other = (page.parent / place).resolve() if place else page
            if not other.exists():
                yield f"{name}:{number}: {target} leads nowhere"
            elif heading and other.suffix == ".md" and heading not in anchors(other):
                yield f"{name}:{number}: {target} leads to no heading"


def faults_of_code(file):
    drawing = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.lstrip()
        if text.startswith(("//! ```", "/// ```")):
            drawing = not drawing
        most = MARKDOWN if drawing else COMMENT
        if text.startswith("//") and len(line) > most:
            yield f"{file.relative_to(ROOT)}:{number}: {len(line)} columns, expected at most {most}"


def main():
    pages = [page for page in tracked("*.md") if "bench/runs" not in str(page)]
    faults = [fault for page in pages for fault in faults_of_page(page)]
    code = [file for file in tracked("*.rs") if "/generated/" not in str(file)]
    faults += [fault for file in code for fault in faults_of_code(file)]
    print("\n".join(faults))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
