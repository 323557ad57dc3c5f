"""Compares the code blocks of README.md and docs/ with the files that they show: readme.py [--write].

A code block after `<!-- tests/clients/FILE -->` shows that file. A block after `<!-- tests/clients/FILE NAME -->` shows the
lines of the file between `# docs: NAME` and `# docs: end`, or with `//` in place of `#`. `--write` updates the pages.
"""

import re
import sys
import textwrap
from pathlib import Path

PAGES = [Path("README.md"), Path("docs/clients.md"), *sorted(Path("docs/clients").glob("*.md"))]
BLOCK = re.compile(r"^<!-- (tests/clients/\S+)(?: ([^\n]+))? -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^<!-- tests/clients/", re.MULTILINE)
# Languages of programs: every block in one of them needs a marker.
PROGRAM = re.compile(r"^```(python|go|java|js|rust)$", re.MULTILINE)


def text_of(file, region):
    """Returns the text that the page must show."""
    text = Path(file).read_text(encoding="utf-8")
    if region:
        found = re.search(rf"^\s*(?:#|//) docs: {re.escape(region)}\n(.*?)^\s*(?:#|//) docs: end$", text, re.MULTILINE | re.DOTALL)
        if not found:
            sys.exit(f"{file} has no region `# docs: {region}`")
        text = textwrap.dedent(found[1])
    return text


def check(page):
    """Compares or rewrites one page. Returns the languages of its programs."""
    text = page.read_text(encoding="utf-8")
    expected = BLOCK.sub(lambda m: m[0][: m.start(4) - m.start()] + text_of(m[1], m[2]) + "```", text)
    if "--write" in sys.argv:
        page.write_text(expected, encoding="utf-8")
    elif expected != text:
        sys.exit(f"{page} differs from tests/clients: run `python3 tests/clients/readme.py --write`")
    blocks = list(BLOCK.finditer(text))
    if len(blocks) != len(MARKER.findall(text)):
        sys.exit(f"{page} has a marker without a code block")
    programs = PROGRAM.findall(text)
    shown = [m[3] for m in blocks if m[3] in programs]
    if len(programs) != len(shown):
        sys.exit(f"{page} has {len(programs)} programs, but {len(shown)} with a marker")
    if page.parent.name == "clients" and not shown:
        sys.exit(f"{page} shows no program")
    return shown


def main():
    shown = [program for page in PAGES for program in check(page)]
    missing = {"python", "go", "java", "js", "rust"} - set(shown)
    if missing:
        sys.exit(f"no page shows a program in {', '.join(sorted(missing))}")
    print(f"{len(PAGES)} pages show {len(shown)} programs of tests/clients")


main()
