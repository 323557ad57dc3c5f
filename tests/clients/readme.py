"""Compares the README's programs with the files that they are cut from: readme.py [--write].

A block of code after `<!-- tests/clients/FILE -->` is that file; after `<!-- tests/clients/FILE NAME -->` it is what lies
in the file between `# README: NAME` and `# README: end`. `--write` puts the files' text into the README.
"""

import re
import sys
import textwrap
from pathlib import Path

README = Path("README.md")
BLOCK = re.compile(r"^<!-- (tests/clients/\S+)(?: ([^\n]+))? -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(file, region):
    """What the README has to show."""
    text = Path(file).read_text(encoding="utf-8")
    if region:
        found = re.search(rf"^ *# README: {region}\n(.*?)^ *# README: end$", text, re.MULTILINE | re.DOTALL)
        text = textwrap.dedent(found[1])
    return text


def main():
    readme = README.read_text(encoding="utf-8")
    cut = BLOCK.sub(lambda m: m[0][: m.start(4) - m.start()] + text_of(m[1], m[2]) + "```", readme)
    if "--write" in sys.argv:
        README.write_text(cut, encoding="utf-8")
    elif cut != readme:
        sys.exit("README.md shows something else than tests/clients: `tests/clients/readme.py --write` cuts it anew")
    # Every program is cut from a file.
    programs = re.findall(r"^```(?:python|go|java|js)$", readme, re.MULTILINE)
    shown = [m[3] for m in BLOCK.finditer(readme) if f"```{m[3]}" in programs]
    if len(programs) != len(shown) or not shown:
        sys.exit(f"README.md has {len(programs)} programs, and {len(shown)} say which file they are")
    print(f"README.md: {len(shown)} programs, as they lie in tests/clients")


main()
