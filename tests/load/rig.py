"""Measures the cost of a call: of both floors, the gateway, the gateway with every trace exported, and Envoy if installed.

`tests/load/rig.sh` builds the programs and runs this script. Each measured program is pinned to one core, except where
spans are lost. The load generator and the upstream use the other cores. Rounds are interleaved, so that other load on the
machine affects all programs equally. Calls and spans are counted on arrival. --write updates the tables and the chart of
docs/performance.md.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

from programs import ALL, CORE, NAMES, OTHERS, Rig, cpu, memory, system_calls

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "deploy"))
from svg import LINES, WIDTH, Sheet, ticks  # noqa: E402

SHAPES = [(1, 1), (8, 1), (4, 16)]
IN_FLIGHT = [(1, 1), (1, 8), (4, 16), (8, 64)]
RATES, RATE_SECONDS = [5_000, 8_000, 10_000, 15_000, 20_000, 25_000], 5
# The milliseconds after which the collector answers, and the gateway's settings.
COLLECTORS = {
    "1 ms": (1, {}),
    "10 ms": (10, {}),
    "10 ms, `OTEL_BSP_MAX_QUEUE_SIZE` 8192": (10, {"OTEL_BSP_MAX_QUEUE_SIZE": "8192"}),
    "10 ms, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` 512": (10, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}),
}
# As many watches as `watch.max` allows. Two polls of each certificate, in intervals of 30 s.
WATCHES, WATCH_CONNECTIONS, WATCH_SECONDS = 1000, 10, 60
WATCHED = {"one": "all of one certificate", "own": "each of its own certificate"}
DOCUMENT = pathlib.Path("docs/performance.md")


def measure(rig, rounds, calls):
    """Returns all figures of all rounds."""
    found = {name: {"cpu": {}, "p99": {}, "idle": [], "peak": [], "first": []} for name in rig.names()}
    for _ in range(rounds):
        for name in rig.names():
            figures, spans = found[name], rig.counts()["spans"]
            with rig.running(name) as (pid, address):
                figures["idle"].append(memory(pid, "VmRSS"))
                rig.load(address, (4, 16), 5000)  # warm
                for shape in SHAPES:
                    before = cpu(pid)
                    load = rig.load(address, shape, calls)
                    figures["cpu"].setdefault(str(shape), []).append((cpu(pid) - before) / calls / 1e3)
                    figures["p99"].setdefault(str(shape), []).append(load["p99_us"])
                figures["peak"].append(memory(pid, "VmHWM"))
            if name == "traced":
                arrived = rig.counts()["spans"] - spans
                figures.setdefault("spans", []).append(arrived / (2 * (5000 + calls * len(SHAPES))))
            figures["first"].append(rig.first_answer(name) / 1e3)
        print(".", end="", file=sys.stderr, flush=True)
    for name in rig.names():
        found[name]["system calls"] = {str(shape): system_calls(rig, name, shape, 5000) for shape in SHAPES}
    for name in ["gateway", "traced"]:
        with rig.running(name) as (pid, address):
            rig.load(address, (4, 16), 50_000)
            before = memory(pid, "VmRSS")
            rig.load(address, (4, 16), 150_000)
            found[name]["growth"] = memory(pid, "VmRSS") / before - 1
    found["gateway"]["in flight"] = {}
    with rig.running("gateway") as (pid, address):
        rig.load(address, (8, 64), 5000)
        for shape in IN_FLIGHT * 3:
            before = cpu(pid)
            rig.load(address, shape, calls)
            cost = (cpu(pid) - before) / calls / 1e3
            found["gateway"]["in flight"].setdefault(shape[0] * shape[1], []).append(cost)
    found["gateway"]["list"] = list_costs(rig, rounds, calls)
    # The capacity of two cores is twice that of one, reduced by the higher cost of a call on two cores.
    costs = {CORE: [], f"{CORE},{OTHERS.split(',')[0]}": []}
    for _ in range(rounds):
        for cores, figures in costs.items():
            with rig.running("gateway", cores) as (pid, address):
                rig.load(address, (4, 16), 5000)
                before = cpu(pid)
                rig.load(address, (4, 16), calls)
                figures.append((cpu(pid) - before) / calls / 1e3)
    found["gateway"]["two cores"] = [2 * one / two for one, two in zip(*costs.values())]
    return found


def list_costs(rig, rounds, calls):
    """Returns the CPU time of a ListCertificates above that of a SaveInfo, in each round."""
    found = []
    with rig.running("gateway") as (pid, address):
        rig.load(address, (4, 16), 5000, "list")
        for _ in range(rounds):
            costs = {}
            for rpc in ["save", "list"]:
                before = cpu(pid)
                rig.load(address, (4, 16), calls, rpc)
                costs[rpc] = (cpu(pid) - before) / calls / 1e3
            found.append(costs["list"] - costs["save"])
    return found


def idle_watches(rig):
    """Returns the memory of a watch in KiB and the share of a core of all of them, by what they watch."""
    found = {}
    for which in WATCHED:
        with rig.running("gateway") as (pid, address):
            command = ["taskset", "-c", OTHERS, rig.rig, "watch", address, *map(str, (WATCH_CONNECTIONS, WATCHES)), which]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
                assert load.stdout.readline() == f"{WATCH_CONNECTIONS} watches\n"  # one on each connection
                before = memory(pid, "VmRSS")
                print(file=load.stdin, flush=True)
                assert load.stdout.readline() == f"{WATCHES} watches\n"
                each = (memory(pid, "VmRSS") - before) * 1024 / (WATCHES - WATCH_CONNECTIONS)
                time.sleep(WATCH_SECONDS / 4)  # to the middle between two polls
                used, polls = cpu(pid), rig.counts()["calls"]
                time.sleep(WATCH_SECONDS)
                found[which] = each, (cpu(pid) - used) / 1e9 / WATCH_SECONDS
                polls = rig.counts()["calls"] - polls
                assert polls == 2 * (WATCHES if which == "own" else 1), f"{polls} polls"
                assert load.poll() is None, "the watches have ended"
    return found


def idle_watches_table(found):
    """Returns the cost of watches in Markdown."""
    lines = [f"| {WATCHES:,} idle watches | memory of a watch in KiB | CPU time of all in % of a core |", "|---|---|---|"]
    lines += [f"| {WATCHED[which]} | {each:.1f} | {100 * share:.2f} |" for which, (each, share) in found.items()]
    return "\n".join(lines)


def lost_spans(target):
    """Returns the achieved rate and the share of lost spans, by rate and collector. Gateway and load share all cores."""
    found = {}
    for collector, (delay, settings) in COLLECTORS.items():
        with contextlib.closing(Rig(target, None, delay)) as rig:
            for rate in RATES:
                calls, spans = rate * RATE_SECONDS, rig.counts()["spans"]
                with rig.running("traced", ALL, **settings) as (_, address):
                    load = rig.generate(calls, ALL, "rate", address, 4, rate, RATE_SECONDS)
                assert load["failures"] == 0, f"{load['failures']:.0f} calls failed at {rate} a second"
                arrived = rig.counts()["spans"] - spans
                found.setdefault(rate, {})[collector] = load["rate"], 1 - arrived / (2 * calls)
    return found


def lost_spans_table(found):
    """Returns the lost spans in Markdown."""
    lines = [f"Spans lost in {RATE_SECONDS} seconds, and the achieved rate, by the collector's response time and the settings:",
             "", "| calls per second | " + " | ".join(COLLECTORS) + " |", "|---|" + "---|" * len(COLLECTORS)]
    for rate, cells in found.items():
        lost = [f"{lost:.1%} ({achieved:,.0f})" if lost else f"0 ({achieved:,.0f})" for achieved, lost in cells.values()]
        lines.append(f"| {rate:,} | {' | '.join(lost)} |")
    return "\n".join(lines)


def spread(figures, form="{:.0f}"):
    """Formats the median and the range."""
    return f"{form} ({form}–{form})".format(statistics.median(figures), min(figures), max(figures))


def ratios(found, name, shape, kind="cpu", to="floor"):
    """Returns the ratio of two programs in each round."""
    return [measured / base for measured, base in zip(found[name][kind][str(shape)], found[to][kind][str(shape)])]


def table(found):
    """Returns the figures in Markdown."""
    lines = ["| CPU in µs per call, median (range) | " + " | ".join(f"{c} x {s}" for c, s in SHAPES) + " | / floor at 4 x 16 |",
             "|---|---|---|---|---|"]
    for name, figures in found.items():
        cells = [spread(figures["cpu"][str(shape)]) for shape in SHAPES]
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + f" | {spread(ratios(found, name, (4, 16)), '{:.2f}')} |")
    lines += ["", "| | p99 in µs at 8 x 1 | / floor | RSS idle, peak in MB | system calls per call at 1 x 1, 8 x 1, 4 x 16 "
              "| exec to the first answer in ms |", "|---|---|---|---|---|---|"]
    for name, figures in found.items():
        calls = ", ".join("–" if count is None else f"{count:.1f}" for count in figures["system calls"].values())
        lines.append(
            f"| {NAMES[name]} | {spread(figures['p99'][str((8, 1))])} | {spread(ratios(found, name, (8, 1), 'p99'), '{:.2f}')} "
            f"| {statistics.median(figures['idle']):.0f}, {max(figures['peak']):.0f} | {calls} | {spread(figures['first'])} |")
    lines += ["", "| calls in flight | CPU in µs per call |", "|---|---|"]
    lines += [f"| {count} | {spread(costs)} |" for count, costs in found["gateway"]["in flight"].items()]
    growth = ", ".join(f"{found[name]['growth']:+.1%} ({NAMES[name]})" for name in ["gateway", "traced"])
    lines += ["", f"Two cores have {spread(found['gateway']['two cores'], '{:.2f}')} times the capacity of one, at 4 x 16."]
    lines += ["", f"A ListCertificates with 50 certificates costs {spread(found['gateway']['list'])} µs more than SaveInfo, at 4 x 16."]
    lines += ["", f"Memory from 50,000 to 200,000 calls: {growth}. "
              f"{min(found['traced']['spans']):.0%} of the spans arrived at the collector."]
    return "\n".join(lines)


def chart(found):
    """Draws the CPU time as bars."""
    sheet = Sheet("What a call costs", "CPU time per call, by connections and streams", "tests/load/rig.sh")
    sheet.text(30, 36, "CPU time per call in µs, by connections x streams", 13)
    highest = max(statistics.median(figures["cpu"][str(shape)]) for figures in found.values() for shape in SHAPES)
    marks = ticks(highest, 5)
    left, right, y = 70, WIDTH - 60, 60
    scale = (right - left) / marks[-1]
    bottom = y + len(SHAPES) * (len(found) * 20 + 22) + 4
    for mark in marks:
        sheet.line(left + mark * scale, y, left + mark * scale, bottom)
        sheet.text(left + mark * scale, bottom + 16, f"{mark:g}", more=' text-anchor="middle"')
    for shape in SHAPES:
        sheet.text(30, y + 16, f"{shape[0]} x {shape[1]}", 12)
        y += 4
        for number, (name, figures) in enumerate(found.items()):
            cost = statistics.median(figures["cpu"][str(shape)])
            sheet.rect(left, y, cost * scale, 14, LINES[number])
            inside = cost * scale > 400
            offset, anchor, fill = (cost * scale - 6, "end", "#ffffff") if inside else (cost * scale + 6, "start", "#1f2328")
            sheet.text(left + offset, y + 11, f"{cost:.0f} {NAMES[name]}", fill=fill, more=f' text-anchor="{anchor}"')
            y += 20
        y += 18
    return sheet.svg(bottom + 34)


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores of {model[1] if model else 'an unknown kind'}, Linux {os.uname().release.split('-')[0]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", help="cargo's target folder")
    parser.add_argument("--envoy", help="path of Envoy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000, help="calls per measurement")
    parser.add_argument("--write", action="store_true", help="update docs/performance.*")
    arguments = parser.parse_args()
    day = f"{datetime.date.today():%-d %B %Y}"
    parts = [f"Measured on {day} on {machine()}; {arguments.rounds} rounds of {arguments.calls:,} calls."]
    with contextlib.closing(Rig(arguments.target, arguments.envoy)) as rig:
        found = measure(rig, arguments.rounds, arguments.calls)
        parts.append(table(found))
        print("\n" + "\n\n".join(parts), flush=True)  # at once, because the rest may fail
        parts.append(idle_watches_table(idle_watches(rig)))
    parts.append(lost_spans_table(lost_spans(arguments.target)))
    print("\n" + "\n\n".join(parts[2:]))
    if arguments.write:
        text = DOCUMENT.read_text()
        begin, end = "<!-- measured -->\n", "<!-- /measured -->\n"
        head, rest = text.split(begin)
        measured = "\n\n".join(parts)
        DOCUMENT.write_text(f"{head}{begin}{measured}\n{end}{rest.split(end)[1]}")
        DOCUMENT.with_suffix(".svg").write_text(chart(found))


if __name__ == "__main__":
    main()
