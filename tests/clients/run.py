"""Runs the clients against the gateway and compares what they print.

Usage: run.py TARGET_FOLDER TOOLS_FOLDER [CLIENT…], from the root of the repository. `run.sh` installs what it needs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lab import Lab, client, until

TARGET, TOOLS, *ONLY = sys.argv[1:]
HERE = Path("tests/clients")
EXPECTED = (HERE / "expected.txt").read_text().splitlines()
# What a client's libraries cannot do.
MISSING = {"node": ["reflection"]}


def commands(folder):
    """How each client is started; those whose language is not here are named and left out."""
    known = {
        "python": ([f"{TOOLS}/bin/python", str(HERE / "python/client.py")], {"PYTHONPATH": str(folder)}),
        "node": (["node", str(HERE / "node/client.js")], {"PROTO": "proto", "NODE_PATH": f"{TOOLS}/node/node_modules"}),
    }
    for name, (command, variables) in known.items():
        if ONLY and name not in ONLY:
            continue
        if not shutil.which(command[0]):
            print(f"no {command[0]}: the client in {name} was not run")
            continue
        yield name, command, {"PATH": os.environ["PATH"], "GRPC_VERBOSITY": "NONE", **variables}


def run(command, variables, *arguments):
    """What a client prints."""
    done = subprocess.run([*command, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def main():
    with Lab(TARGET) as lab:
        client(lab.folder)  # generates the Python code
        variables = {
            **lab.emulator("--delay", "500"),
            "SCM_GATEWAY__SERVER__MAX_IN_FLIGHT": "1",
            "SCM_GATEWAY__SERVER__LAME_DUCK": "0s",
        }
        address, _, process = lab.gateway(variables)
        log = lab.folder / "1-scm-gateway.log"
        clients = list(commands(lab.folder))
        for number, (name, command, environment) in enumerate(clients):
            trace = f"{number + 1:032x}"
            printed = run(command, environment, address, f"00-{trace}-00000000000000ff-01")
            expected = [line for line in EXPECTED if line.split(":")[0] not in MISSING.get(name, [])]
            assert printed == expected, f"{name} printed\n" + "\n".join(printed)
            until(f"the trace of {name} in the log", lambda: any(
                json.loads(line).get("trace_id") == trace for line in log.read_text().splitlines()))
            print(f"{name}: all {len(printed)} lines as expected, and its trace in the log")

        # A call in flight holds the gateway while it drains; others are told to go elsewhere.
        holder = subprocess.Popen([*clients[0][1], address, ""], env=clients[0][2], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        process.send_signal(signal.SIGTERM)
        until("the drain", lambda: "stopping" in log.read_text())
        for name, command, environment in clients:
            printed = run(command, environment, address, "", "drain")
            assert printed == ["drain: UNAVAILABLE"], f"{name} printed {printed}"
        print("all: UNAVAILABLE from a gateway that drains")
        holder.kill()
        assert process.wait(30) == 0
        lab.running.remove(process)


main()
