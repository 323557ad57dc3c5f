"""Measures the cost of a call: of both floors, the gateway, the gateway with every trace exported, and Envoy if installed.

`tests/load/rig.sh` builds the programs and runs this script. Each measured program is pinned to one core. The load
generator and the upstream use the other cores. Rounds are interleaved, so that other load on the machine affects all
programs equally. Calls and spans are counted on arrival. --write updates the table and the chart of
docs/performance.md.
"""

import argparse
import contextlib
import datetime
import glob
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "deploy"))
from svg import LINES, WIDTH, Sheet, ticks  # noqa: E402

SHAPES = [(1, 1), (8, 1), (4, 16)]
IN_FLIGHT = [(1, 1), (1, 8), (4, 16), (8, 64)]
RATES, RATE_SECONDS = [5_000, 10_000, 15_000, 20_000, 25_000], 5
# The milliseconds after which the collector answers, and the gateway's settings.
COLLECTORS = {
    "1 ms": (1, {}),
    "10 ms": (10, {}),
    "10 ms, queue 8192": (10, {"OTEL_BSP_MAX_QUEUE_SIZE": "8192"}),
    "10 ms, batch 512": (10, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}),
}
# As many watches as `watch.max` allows. Two polls of each certificate, in intervals of 30 s.
WATCHES, WATCH_CONNECTIONS, WATCH_SECONDS = 1000, 10, 60
WATCHED = {"one": "all of one certificate", "own": "each of its own certificate"}
CORE, OTHERS = "0", ",".join(map(str, sorted(os.sched_getaffinity(0) - {0}))) or "0"
ALL = f"{CORE},{OTHERS}"
DOCUMENT = pathlib.Path("docs/performance.md")
NAMES = {
    "floor": "the floor: tonic + reqwest, signed",
    "hyper": "tonic + hyper, signed",
    "gateway": "the gateway, no exporter",
    "traced": "the gateway, every call traced and exported",
    "envoy": "Envoy: transcoding alone",
    "envoy full": "Envoy: with AWS's signature, SCM's codes as statuses, tracing at 100 %, a limit",
}
FLOORS = {"floor": "floor", "hyper": "hyper_floor"}

# Maps SCM's error codes to HTTP statuses, which Envoy's transcoder maps to gRPC statuses.
STATUSES = """
local statuses = { ["SCM.0003"] = "403", ["SCM.0008"] = "404", ["SCM.0010"] = "412", ["APIG.0308"] = "429" }
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") == "200" then return end
  local body = handle:body()
  local code = body and string.match(body:getBytes(0, body:length()), '"error_code"%s*:%s*"([%w.]+)"')
  if statuses[code] then headers:replace(":status", statuses[code]) end
end
"""

ENVIRONMENT = {
    "HUAWEICLOUD_SDK_AK": "EXAMPLEAK0000000000A",
    "HUAWEICLOUD_SDK_SK": "EXAMPLESK/not+a=real",
    "HUAWEICLOUD_SDK_PROJECT_ID": "5a9b2cd9d2f8471d84e3ac2ac3d0a2c5",
    "SCM_GATEWAY__ADMIN__LISTEN": "127.0.0.1:0",
    "SCM_GATEWAY__SERVER__LAME_DUCK": "0s",
}


class Rig:
    """The upstream, and the commands of the measured programs."""

    def __init__(self, target, envoy, delay=0):
        self.target, self.envoy = pathlib.Path(target) / "release", envoy
        self.rig = str(self.target / "rig")
        self.folder = tempfile.TemporaryDirectory()
        command = ["taskset", "-c", OTHERS, self.rig, "upstream", str(delay)]
        self.backend = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.upstream = self.backend.stdout.readline().split()[-1]

    def close(self):
        self.backend.terminate()
        self.backend.wait()
        self.folder.cleanup()

    def names(self):
        return ["floor", "hyper", "gateway", "traced"] + (["envoy", "envoy full"] if self.envoy else [])

    def command(self, name, address):
        """Returns the command of a program, and its environment."""
        upstream = f"http://{self.upstream}"
        if name in FLOORS:
            return [str(self.target / FLOORS[name]), upstream, address], {}
        if name.startswith("envoy"):
            file = pathlib.Path(self.folder.name) / f"{name}.json"
            file.write_text(json.dumps(self.envoy_configuration(address, name == "envoy full")))
            return [self.envoy, "-c", str(file), "--concurrency", "1", "--log-level", "error"], {}
        environment = ENVIRONMENT | {"SCM_GATEWAY__UPSTREAM__ENDPOINT": upstream, "SCM_GATEWAY__SERVER__LISTEN": address}
        if name == "traced":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = upstream
        return [str(self.target / "scm-gateway")], environment

    def envoy_configuration(self, address, full):
        host, port = address.split(":")
        up_host, up_port = self.upstream.split(":")
        newest = max(glob.glob(str(self.target / "build/scm-gateway-*/out/descriptor_set.bin")), key=os.path.getmtime)
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in", "codec_type": "HTTP2",
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "scm"}}]}]},
            "http_filters": [
                typed("grpc_json_reverse_transcoder", "GrpcJsonReverseTranscoder", descriptor_path=newest)]}
        if full:
            bucket = {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"}
            everything = {"default_value": {"numerator": 100}}
            manager["http_filters"] += [
                typed("local_ratelimit", "LocalRateLimit", stat_prefix="limit", token_bucket=bucket,
                      filter_enabled=everything, filter_enforced=everything),
                typed("lua", "Lua", default_source_code={"inline_string": STATUSES}),
                typed("aws_request_signing", "AwsRequestSigning", service_name="scm", region="cn-north-4",
                      credential_provider={"custom_credential_provider_chain": True, "inline_credential": {
                          "access_key_id": "EXAMPLEAK0000000000A", "secret_access_key": "EXAMPLESK/not+a=real"}})]
            manager["tracing"] = {"provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "envoy",
                "http_service": {"http_uri": {
                    "uri": f"http://{self.upstream}/v1/traces", "cluster": "scm", "timeout": "5s"}}}},
                "spawn_upstream_span": True}
        else:
            manager["route_config"]["virtual_hosts"][0]["request_headers_to_add"] = [
                {"header": {"key": "authorization", "value": "AWS4-HMAC-SHA256 none"}}]
        manager["http_filters"].append(typed("router", "Router"))
        cluster = {"name": "scm", "type": "STATIC", "load_assignment": {"cluster_name": "scm", "endpoints": [{
            "lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": up_host, "port_value": int(up_port)}}}}]}]}}
        listener = {"address": {"socket_address": {"address": host, "port_value": int(port)}}, "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
        return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}

    @contextlib.contextmanager
    def running(self, name, cores=CORE, **settings):
        """Starts a program with further variables, and stops it at the end, so that it exports its last spans."""
        address = f"127.0.0.1:{free_port()}"
        command, environment = self.command(name, address)
        with open(os.devnull, "w") as log:
            process = subprocess.Popen(["taskset", "-c", cores, *command], env=os.environ | environment | settings, stdout=log)
        try:
            listening(address)
            time.sleep(0.3)
            yield process.pid, address
        finally:
            process.terminate()
            process.wait()

    def load(self, address, shape, calls, rpc="save"):
        """Makes calls, one after the other on each stream, and returns the load generator's figures."""
        return self.generate(calls, OTHERS, "load", address, *shape, calls, rpc)

    def generate(self, calls, cores, *arguments):
        """Runs the load generator. All calls must arrive. Returns the figures that it prints."""
        before = self.counts()["calls"]
        command = ["taskset", "-c", cores, self.rig, *map(str, arguments)]
        fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        arrived = self.counts()["calls"] - before
        assert arrived == calls, f"{arrived} of {calls} calls arrived"
        return dict(zip(fields[::2], map(float, fields[1::2])))

    def counts(self):
        with urllib.request.urlopen(f"http://{self.upstream}") as answer:
            return {name: int(count) for name, count in (line.split() for line in answer.read().decode().splitlines())}

    def first_answer(self, name):
        """Returns the microseconds from exec to the first answered call."""
        address = f"127.0.0.1:{free_port()}"
        command, environment = self.command(name, address)
        first = [self.rig, "first", address, "taskset", "-c", CORE, *command]
        return int(subprocess.run(first, check=True, capture_output=True, env=os.environ | environment).stdout)


def typed(name, kind, **settings):
    """Returns an HTTP filter of Envoy."""
    kind = f"type.googleapis.com/envoy.extensions.filters.http.{name}.v3.{kind}"
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": kind, **settings}}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listening(address):
    host, port = address.split(":")
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no program listens on {address}")


def cpu(pid):
    """Returns the CPU time of a process in nanoseconds."""
    return sum(int(pathlib.Path(task).read_text().split()[0]) for task in glob.glob(f"/proc/{pid}/task/*/schedstat"))


def memory(pid, field):
    """Returns a memory figure in MB, by its name in proc(5)."""
    return int(re.search(rf"^{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1]) / 1024


def system_calls(rig, name, shape, calls):
    """Returns the system calls per call, or None without permission to count them."""
    with rig.running(name) as (pid, address):
        rig.load(address, shape, calls)
        counting = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(pid)],
            stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        rig.load(address, shape, calls)
        counting.send_signal(2)
        count = counting.communicate()[1].split(",")[0]
    return int(count) / calls if count.isdigit() else None


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
    found["gateway"]["list"] = []
    with rig.running("gateway") as (pid, address):
        rig.load(address, (4, 16), 5000, "list")
        for _ in range(rounds):
            costs = {}
            for rpc in ["save", "list"]:
                before = cpu(pid)
                rig.load(address, (4, 16), calls, rpc)
                costs[rpc] = (cpu(pid) - before) / calls / 1e3
            found["gateway"]["list"].append(costs["list"] - costs["save"])
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


def idle_watches(rig):
    """Returns the memory of a watch in KiB and the share of a core of all of them, by what they watch."""
    found = {}
    for which in WATCHED:
        with rig.running("gateway") as (pid, address):
            command = ["taskset", "-c", OTHERS, rig.rig, "watch", address, *map(str, (WATCH_CONNECTIONS, WATCHES)), which]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
                load.stdout.readline()  # each connection has one
                before = memory(pid, "VmRSS")
                print(file=load.stdin, flush=True)
                load.stdout.readline()
                each = (memory(pid, "VmRSS") - before) * 1024 / (WATCHES - WATCH_CONNECTIONS)
                time.sleep(WATCH_SECONDS / 4)  # to the middle between two polls
                used = cpu(pid)
                time.sleep(WATCH_SECONDS)
                found[which] = each, (cpu(pid) - used) / 1e9 / WATCH_SECONDS
    return found


def idle_watches_table(found):
    """Returns the cost of watches in Markdown."""
    lines = [f"| {WATCHES:,} idle watches | memory of a watch in KiB | all in % of a core |", "|---|---|---|"]
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
                assert load["failures"] == 0, f"{load['failures']:.0f} calls failed"
                arrived = rig.counts()["spans"] - spans
                found.setdefault(rate, {})[collector] = load["rate"], 1 - arrived / (2 * calls)
    return found


def lost_spans_table(found):
    """Returns the lost spans in Markdown."""
    lines = ["| calls per second | spans lost (calls per second achieved), with a collector that answers after "
             + " | ".join(COLLECTORS) + " |", "|---|" + "---|" * len(COLLECTORS)]
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
    with contextlib.closing(Rig(arguments.target, arguments.envoy)) as rig:
        found, watches = measure(rig, arguments.rounds, arguments.calls), idle_watches(rig)
    tables = "\n\n".join([table(found), idle_watches_table(watches), lost_spans_table(lost_spans(arguments.target))])
    day = f"{datetime.date.today():%-d %B %Y}"
    measured = f"Measured on {day} on {machine()}; {arguments.rounds} rounds of {arguments.calls:,} calls.\n\n{tables}"
    print(f"\n{measured}")
    if arguments.write:
        text = DOCUMENT.read_text()
        begin, end = "<!-- measured -->\n", "<!-- /measured -->\n"
        head, rest = text.split(begin)
        DOCUMENT.write_text(f"{head}{begin}{measured}\n{end}{rest.split(end)[1]}")
        DOCUMENT.with_suffix(".svg").write_text(chart(found))


if __name__ == "__main__":
    main()
