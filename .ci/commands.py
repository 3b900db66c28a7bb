#!/usr/bin/env python3
"""Runs the commands of README.md and docs/*.md, so that the documents stay true.

usage: .ci/commands.py PROGRAM [DOCUMENT..]

The blocks `sh` of a document run in their order in one scratch folder, in which `ams`, `target/release/ams` and
`cargo run --release --` are PROGRAM; `cargo build` and `cargo test` do nothing, since the gate runs them. A block
`toml` whose first line is `# NAME.toml` is that file, there before the first command, and a command has to name it.
A command that fails is reported with its file and line.

Three things differ from what a reader does. Shops are tiny (`--size tiny`, of the usual eight days). A server
(`ams serve`) runs in the background until the next one starts or the document ends, and the commands after it wait
until it is ready. `curl` fails where the answer is an error.

HTML comments above a block, invisible to a reader, say what it needs:

    <!-- not run: REASON -->       the block cannot run here, or has no place here
    <!-- before: COMMANDS -->      they run first; $demo is the folder of a tiny demo, which is shared: copy from it
    <!-- added to: NAME.toml -->   the block of `toml` without a name is appended to that file
    <!-- with the wheel: -->       the block of `python` runs as well, by the interpreter $AMS_PYTHON, which has the
                                   wheel; without that variable it does not
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHELL, CONFIGURATION = {"sh", "bash", "console"}, {"toml"}
SECONDS_AT_MOST = 180
MARKS = ("not run", "before", "added to", "with the wheel")

# What `ams` is in the scratch folder. A server outlives it, and the next server or the end of the document stops it.
AMS = """#!/usr/bin/env bash
case "${1-}" in
  demo) [[ " $* " == *" --size "* ]] || set -- "$@" --size tiny ;;
  synth) [[ " $* " == *" --size "* ]] || set -- "$@" --size tiny --days 8 ;;
  serve)
    "$AMS_DOCUMENT/bin/stop-server"
    "$AMS_PROGRAM" "$@" >"$AMS_DOCUMENT/server.log" 2>&1 </dev/null &
    echo $! >"$AMS_DOCUMENT/server.pid"
    for _ in {1..300}; do
      kill -0 $! 2>/dev/null || break
      PATH=${PATH#*:} curl -fs -o "$AMS_DOCUMENT/ready" http://127.0.0.1:8600/health/ready && exit 0
      sleep 0.1
    done
    cat "$AMS_DOCUMENT/server.log" >&2
    exit 1
    ;;
esac
exec "$AMS_PROGRAM" "$@"
"""
STOP_SERVER = """#!/usr/bin/env bash
cd "$AMS_DOCUMENT" && [ -e server.pid ] || exit 0
pid=$(cat server.pid) && rm server.pid
# Asked twice, a server does not wait for its clients.
kill "$pid" 2>/dev/null && sleep 0.2 && kill "$pid" 2>/dev/null
for _ in {1..100}; do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.1; done
kill -KILL "$pid"
"""
CARGO = """#!/usr/bin/env bash
case "${1-}" in
  build | test) exit 0 ;;
  run) while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done; shift; exec ams "$@" ;;
esac
echo "cargo $*: .ci/commands.py knows build, test and run" >&2
exit 1
"""
CURL = """#!/usr/bin/env bash
PATH=${PATH#*:} exec curl --fail-with-body "$@"
"""


class Block:
    """A fenced block: its language, its text, the document's line of its first line, its marks."""

    def __init__(self, language, line, marks):
        self.language, self.line, self.marks, self.lines = language, line, marks, []

    @property
    def text(self):
        return "".join(f"{line}\n" for line in self.lines)


def blocks(page):
    """The blocks of a document. A mark belongs to the block that follows it, with nothing but blank lines between."""
    found, block, marks, comment = [], None, {}, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if block is not None:
            if line.strip() == "```":
                found.append(block)
                block = None
            else:
                block.lines.append(line)
        elif comment is not None or line.startswith("<!--"):
            comment = line if comment is None else f"{comment}\n{line}"
            if "-->" in line:
                name, _, content = comment.removeprefix("<!--").partition("-->")[0].partition(":")
                if name.strip() in MARKS:
                    above = len(content) - len(content.lstrip())
                    marks[name.strip()] = (number - comment.count("\n") + content[:above].count("\n"), content.strip())
                comment = None
        elif fence := re.match(r"\s*```(\w+)", line):
            block, marks = Block(fence[1], number + 1, marks), {}
        elif line.strip():
            marks = {}
    return found


def waiting(text):
    """Commands that start a server and go on do not need their `&`: our `ams` goes on when the server is ready."""
    return re.sub(r"(?m)^([^#\n]*\bams serve\b[^#\n&]*?)\s*&(\s*(?:#.*)?)$", r"\1\2", text)


def run(text, line, folder, environment):
    """Runs commands that begin at a line of their document; where they fail, that line and what they printed."""
    failed = folder / "failed"
    failed.unlink(missing_ok=True)
    # The shell counts lines as the document does.
    script = f"set -eEuo pipefail; trap 'echo $LINENO >\"$AMS_DOCUMENT/failed\"' ERR" + "\n" * (line - 1) + waiting(text)
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder / "work", env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=SECONDS_AT_MOST,
        )
    except subprocess.TimeoutExpired as slow:
        said = slow.stdout or b""
        return line, f"did not end within {SECONDS_AT_MOST} s\n{said.decode(errors='replace')[-2000:]}"
    if done.returncode == 0:
        return None
    where = int(failed.read_text()) if failed.exists() else line
    return where, f"exit code {done.returncode}\n{done.stdout[-2000:]}"


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def runs(block):
    """Whether a block is one of commands."""
    if block.language == "python":
        return "with the wheel" in block.marks and "AMS_PYTHON" in os.environ
    return block.language in SHELL and "not run" not in block.marks


def command(block):
    """What a shell runs for a block; lines are counted as in the document."""
    if block.language == "python":
        return f"\"$AMS_PYTHON\" - <<'PYTHON'\n{block.text}PYTHON\n"
    return block.text


def faults(page, program, demo, folder):
    """Every fault of one document: none of its later blocks runs once one has failed."""
    name = page.relative_to(ROOT)
    all_blocks = blocks(page)
    (folder / "bin").mkdir(parents=True)
    release = folder / "work/target/release"
    release.mkdir(parents=True)
    for file, text in {"ams": AMS, "stop-server": STOP_SERVER, "cargo": CARGO, "curl": CURL}.items():
        executable(folder / "bin" / file, text)
    (release / "ams").symlink_to(folder / "bin/ams")
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "AMS_PROGRAM": str(program),
        "AMS_DOCUMENT": str(folder),
        "AMS_CACHE": str(folder / "cache"),
        "demo": str(demo),
    }

    commands = [block for block in all_blocks if runs(block)]
    for block in all_blocks:
        if block.language not in SHELL | CONFIGURATION or "not run" not in block.marks:
            continue
        if not block.marks["not run"][1]:
            yield f"{name}:{block.line - 1}: a block that is not run, without a reason"
    for block in all_blocks:
        if block.language not in CONFIGURATION or "not run" in block.marks:
            continue
        own = re.match(r"#\s*([\w.-]+\.toml)\b", block.text)
        _, file = block.marks.get("added to", (0, own[1] if own else ""))
        if not file:
            yield f"{name}:{block.line}: a configuration without a name, expected `# NAME.toml` in its first line or a mark"
        elif not any(re.search(rf"\b{re.escape(file)}\b", other.text + other.marks.get("before", (0, ""))[1]) for other in commands):
            yield f"{name}:{block.line}: no command reads {file}"
        else:
            with open(folder / "work" / file, "a", encoding="utf-8") as out:
                out.write(block.text)
    try:
        for block in commands:
            parts = [(block.line, command(block))]
            if "before" in block.marks:
                parts.insert(0, block.marks["before"])
            for line, text in parts:
                if fault := run(text, line, folder, environment):
                    yield f"{name}:{fault[0]}: {fault[1]}"
                    return
    finally:
        subprocess.run([folder / "bin/stop-server"], env=environment)


def alone():
    """Servers of documents have the ports of the documents: a network of our own keeps them from all others."""
    if "AMS_ALONE" in os.environ:
        return
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("no network of our own: the ports 8600 and 8601 of this machine have to be free")
        return
    again = [*inside, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
    os.execvpe(again[0], again, os.environ | {"AMS_ALONE": "yes"})


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    alone()
    program = pathlib.Path(sys.argv[1]).resolve()
    pages = [pathlib.Path(page).resolve() for page in sys.argv[2:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = False
    with tempfile.TemporaryDirectory(prefix="ams-commands-") as scratch:
        scratch = pathlib.Path(scratch)
        demo = scratch / "demo"
        subprocess.run([program, "demo", "--size", "tiny", "--out", demo], check=True, capture_output=True)
        for page in pages:
            begun = time.monotonic()
            of_page = list(faults(page, program, demo, scratch / page.stem))
            found = found or bool(of_page)
            for fault in of_page:
                print(fault)
            ran = sum(runs(block) for block in blocks(page))
            left = sum(block.language in SHELL | CONFIGURATION and "not run" in block.marks for block in blocks(page))
            if (ran or left) and not of_page:
                print(f"{page.relative_to(ROOT)}: {ran} blocks ran in {time.monotonic() - begun:.0f} s, {left} marked as not run")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
