"""Draws docs/trace.svg and docs/dashboard.svg from spans and metrics of the real gateway, or checks the existing ones.

Usage: pictures.py TARGET_FOLDER [--write], from the root of the repository. `pictures.sh` installs the tools.
Without --write the gateway runs the same calls for a shorter time, and the pictures must contain the same names of
spans, attributes, panel titles and legends. Measured values may differ.
"""

import difflib
import math
import re
import sys
import threading
import time
import xml.etree.ElementTree as xml
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import svg
from dashboard import DASHBOARD, Prometheus, filled, panels
from lab import Lab, client, sample, until

TARGET, *OPTIONS = sys.argv[1:]
WRITE = "--write" in OPTIONS
PICTURES = (Path("docs/trace.svg"), Path("docs/dashboard.svg"))
# The example of the W3C specification.
TRACE_ID, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# Duration of the calls, and start of the outage of SCM, which takes a sixth of it.
SECONDS = 60 if WRITE else 18
OUTAGE = SECONDS // 2
RATE_INTERVAL = "4s"  # Grafana's value for a scrape interval of one second


class Server(ThreadingHTTPServer):
    """An HTTP server on a free port, with its own threads."""

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Reads a request, and writes a response."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Collector(Server):
    """Receives traces by OTLP over HTTP."""

    def __init__(self):
        self.spans = spans = []

        class Take(Handler):
            def do_POST(self):
                for resource in ExportTraceServiceRequest.FromString(self.body()).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.answer(200, [("content-type", "application/x-protobuf")])

        super().__init__(Take)


class Entrance(Server):
    """A proxy in front of the emulator that answers the next `rejections` requests with 503."""

    def __init__(self, emulator):
        self.rejections = 0
        entrance, address = self, emulator.removeprefix("http://")

        class Pass(Handler):
            def do_POST(self):
                body = self.body()
                if entrance.rejections > 0:
                    entrance.rejections -= 1
                    time.sleep(0.02)
                    self.answer(503)
                    return
                connection = HTTPConnection(address, timeout=10)
                connection.request("POST", self.path, body, dict(self.headers))
                reply = connection.getresponse()
                # These headers belong to one connection.
                own = ("content-length", "connection", "transfer-encoding", "date", "server")
                headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in own]
                self.answer(reply.status, headers, reply.read())
                connection.close()

        super().__init__(Pass)


def value_of(attribute):
    """Returns the value of an OTLP attribute."""
    return str(getattr(attribute.value, attribute.value.WhichOneof("value")))


def draw_trace(stub, messages, collector, entrance):
    """Draws the trace of a call whose first attempt fails with 503."""
    entrance.rejections = 1
    stub.SaveInfo(sample(messages), timeout=5, metadata=[("traceparent", f"00-{TRACE_ID}-{CALLER}-01")])

    def of_trace():
        found = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
        return found if len(found) == 3 else None

    found = sorted(until("the export of three spans", of_trace), key=lambda span: span.start_time_unix_nano)
    assert found[0].parent_span_id.hex() == CALLER
    assert all(span.parent_span_id == found[0].span_id for span in found[1:])
    since = lambda nanoseconds: (nanoseconds - found[0].start_time_unix_nano) / 1e9
    spans = [{
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "start": since(span.start_time_unix_nano),
        "end": since(span.end_time_unix_nano),
        "failed": span.status.code == Status.STATUS_CODE_ERROR,
        "attributes": {attribute.key: value_of(attribute) for attribute in span.attributes},
    } for span in found]
    return svg.trace("Trace of one call: SCM is not available at first, and the gateway retries",
                     f"trace {TRACE_ID}, continued from the caller's span {CALLER}", spans)


def calls(stub, messages, entrance):
    """Makes calls for SECONDS at a varying rate, with some caller mistakes and an outage of SCM."""
    unknown, bad = sample(messages), sample(messages)
    unknown.cert_id, bad.cert_id = "scs0000000000404", "!"
    begin, made, waiting = time.monotonic(), 0, []
    while (now := time.monotonic() - begin) < SECONDS:
        entrance.rejections = 10**6 if OUTAGE <= now < OUTAGE + SECONDS / 6 else 0
        request = unknown if made % 8 == 3 else bad if made % 20 == 7 else sample(messages)
        waiting.append(stub.SaveInfo.future(request, timeout=5))
        made += 1
        time.sleep(1 / (22 + 10 * math.sin(now * 2 * math.pi / 40)))
    for call in waiting:
        call.exception()  # waits


def legend(target, labels):
    """Returns the legend as Grafana renders it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target["legendFormat"])


def draw_dashboard(stub, messages, entrance, prometheus):
    """Draws the first row of the dashboard."""
    begin = time.time()
    calls(stub, messages, entrance)
    begin, seconds = begin + 5, SECONDS - 5
    title = next(panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row")
    shown = []
    for panel in panels(title):
        series = {}
        for target in panel["targets"]:
            found = prometheus.over_time(filled(target["expr"], RATE_INTERVAL), begin, begin + seconds)
            assert found, f"{panel['title']}: no data"
            for one in found:
                points = [(float(at) - begin, float(value)) for at, value in one["values"]]
                series[legend(target, one["metric"])] = points
        shown.append({"title": panel["title"], "unit": panel["fieldConfig"]["defaults"]["unit"], "series": series})
    described = f"The row “{title}” of the dashboard over {seconds} seconds, with an outage of SCM in the middle."
    return svg.row(title, described, seconds, shown)


def words(picture):
    """Returns the texts of a picture, without measured values, ports and random IDs."""
    texts = [one.text for one in xml.fromstring(picture).iter("{http://www.w3.org/2000/svg}text") if one.get("class") is None]
    return [re.sub(r"\b[0-9a-f]{16,}\b|(?<=server\.port = )\d+", "#", text) for text in texts]


def main():
    with Lab(TARGET) as lab:
        collector = Collector()
        variables = lab.emulator("--delay", "15")
        entrance = Entrance(variables["SCM_GATEWAY__UPSTREAM__ENDPOINT"])
        variables |= {"SCM_GATEWAY__UPSTREAM__ENDPOINT": entrance.endpoint, "OTEL_METRICS_EXPORTER": "none",
                      "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        address, admin, _ = lab.gateway(variables)
        messages, services = client(lab.folder)
        with grpc.insecure_channel(address) as channel:
            stub = services.CertificateServiceStub(channel)
            stub.SaveInfo(sample(messages), timeout=5)  # opens the connection
            drawn = [draw_trace(stub, messages, collector, entrance)]
            drawn.append(draw_dashboard(stub, messages, entrance, Prometheus(lab, admin)))
    differences = []
    for path, picture in zip(PICTURES, drawn, strict=True):
        if WRITE:
            path.write_text(picture)
        assert f"]({path.name})" in Path("docs/telemetry.md").read_text(), f"docs/telemetry.md does not show {path}"
        differences += difflib.unified_diff(words(path.read_text()), words(picture), str(path), "now", lineterm="")
    if differences:
        sys.exit("\n".join(differences) + "\n(`tests/deploy/pictures.sh --write` redraws it)")
    print("The pictures match the gateway.")


main()
