"""Runs the commands of transcripts, and compares what they print: transcript.py [--write] FILE…

A transcript has commands after `$ `, each followed by its output. `\\` at the end of a line continues a command. Ids of
requests are shown as `…`, and blanks at the end of a line are left out. `--write` updates the files.
"""

import difflib
import re
import subprocess
import sys
from pathlib import Path

COMMAND = re.compile(r"^\$ ((?:\\\n|'[^']*'|[^'\n])*)\n", re.MULTILINE)
REQUEST_ID = re.compile(r"\b[0-9a-f]{32}\b")


def printed(command):
    """Returns what a command prints on both outputs."""
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    text = REQUEST_ID.sub("…", done.stdout)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def main():
    write = "--write" in sys.argv
    for file in map(Path, (argument for argument in sys.argv[1:] if argument != "--write")):
        expected = file.read_text(encoding="utf-8")
        commands = COMMAND.findall(expected)
        assert commands, f"{file} has no command"
        actual = "".join(f"$ {command}\n{printed(command)}" for command in commands)
        if write:
            file.write_text(actual, encoding="utf-8")
        elif actual != expected:
            difference = difflib.unified_diff(expected.splitlines(), actual.splitlines(), str(file), "printed", lineterm="")
            sys.exit("\n".join(difference))
        print(f"{file.parent.name}/{file.name}: output as documented")


main()
