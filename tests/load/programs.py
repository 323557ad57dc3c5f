"""The measured programs and the upstream: starts and stops them, sends them load, and reads what the kernel counts."""

import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

CORE, OTHERS = "0", ",".join(map(str, sorted(os.sched_getaffinity(0) - {0}))) or "0"
ALL = f"{CORE},{OTHERS}"
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
        fields = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
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
    """Returns the system calls per call, or None without perf or without permission to count them."""
    if not shutil.which("perf"):
        return None
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
