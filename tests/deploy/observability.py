"""Checks alerts, dashboard, runbook and Collector configuration against the real gateway.

Usage: observability.py TARGET_FOLDER, from the root of the repository. `observability.sh` installs the tools.
"""

import json
import re
import sys
import urllib.request
from pathlib import Path

import grpc
import promql_parser
import yaml
from prometheus_client import parser as text_format
from prometheus_client.openmetrics import parser as open_metrics

from dashboard import DASHBOARD, Prometheus, filled, panels
from lab import Lab, client, sample, until

TARGET = Path(sys.argv[1])
ALERTS_FILE = Path("deploy/helm/scm-gateway/files/alerts.yaml")
ALERTS = yaml.safe_load(ALERTS_FILE.read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# Labels that Prometheus adds to every scraped series.
SCRAPED = {"job", "instance", "namespace", "pod"}
TELEMETRY = Path("docs/telemetry.md").read_text()
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def queries():
    """Yields every query with the name of its owner."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for query in panel["targets"]:
            yield panel["title"], filled(query["expr"])


def selectors(expression):
    """Returns the series that a query selects: name, and label matchers."""
    found = []

    def walk(node):
        kind = type(node).__name__
        if kind == "VectorSelector":
            matchers = [(m.name, str(m.op), m.value) for m in node.matchers.matchers]
            found.append((node.name, matchers))
        for child in ("expr", "lhs", "rhs", "vector_selector", "param"):
            value = getattr(node, child, None)
            if value is not None and not isinstance(value, str):
                walk(value)
        for argument in getattr(node, "args", None) or []:
            walk(argument)

    walk(promql_parser.parse(expression))
    return found


def real_series():
    """Returns name -> label -> values, as the test suites recorded them from /metrics."""
    series = {}
    for path in (TARGET / "tmp").glob("*.metrics"):
        for line in path.read_text().splitlines():
            name, _, labels = line.partition("{")
            known = series.setdefault(name, {})
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels):
                known.setdefault(label, set()).add(value)
    return series


def check_names():
    """Every metric, label and label value of a query exists."""
    series = real_series()
    assert series, "no metrics were recorded: run `cargo test` first"
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    selected = 0
    for owner, expression in queries():
        for name, matchers in selectors(expression):
            selected += 1
            if name in recorded or name == "up":
                continue
            assert name in series, f"{owner}: no metric {name}"
            for label, operator, value in matchers:
                if label in SCRAPED:
                    continue
                assert label in series[name], f"{owner}: {name} has no label {label}"
                if operator.endswith("Equal") and "Not" not in operator and value and label != "le":
                    assert value in series[name][label], f"{owner}: {name} is never {label}={value}"
        for label in re.findall(r"\bby \(([^)]*)\)", expression):
            names = {name for name, _ in selectors(expression)} - recorded - {"up"}
            for one in re.split(r",\s*", label):
                known = one in SCRAPED or any(one in series[name] for name in names)
                assert known or not names, f"{owner}: by ({one}), but no metric has this label"
    assert selected > 40, "the queries were not parsed"


def table(after):
    """Returns the cells of the rows of the first table after a text in docs/telemetry.md."""
    rows = re.search(r"(?:^\|.*\n)+", TELEMETRY[TELEMETRY.index(after):], re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def check_documents():
    """Every documented metric is served with the documented labels, and every served one is documented."""
    names = [row[3].strip("`") for row in table("## Metrics")]
    described = {row[0].strip("`"): row[1] for row in table("Labels at `/metrics`")}
    assert names == list(described), set(names) ^ set(described) or "different order"
    listed = {
        "rpc_server_call_duration_seconds": re.search("^Labels of calls: (.*)$", TELEMETRY, re.MULTILINE)[1],
        "http_client_request_duration_seconds": re.search("^Labels of attempts: (.*)$", TELEMETRY, re.MULTILINE)[1],
    }
    served = {}
    for name, labels in real_series().items():
        family = re.sub("_(bucket|sum|count)$", "", name)
        served.setdefault(family if family in listed else name, set()).update(labels)
    assert set(served) == set(names), set(served) ^ set(names)
    for name, labels in described.items():
        if name != "target_info":
            documented = set(re.findall(r"`(\w+)`", listed.get(name, labels)))
            known = served[name] - {"otel_scope_name", "le"}
            assert documented == known, f"{name}: {documented ^ known}"


def status_fields():
    """Returns the paths of all fields of /status, such as `projects[].cooldown.until`."""
    schema = json.loads(Path("docs/status.schema.json").read_text())
    found = set()

    def walk(node, path):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        if "items" in node:
            walk(node["items"], f"{path}[]")
        for name, field in node.get("properties", {}).items():
            field_path = f"{path}.{name}" if path else name
            found.add(field_path)
            walk(field, field_path)

    walk(schema, "")
    return found


def check_runbook():
    """Every alert links to its runbook entry, and every entry belongs to an alert."""
    text = Path("docs/runbook.md").read_text()
    entries = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert entries == alerts, set(entries) ^ set(alerts) or "different order"
    for rule in RULES:
        if "alert" in rule:
            notes = rule["annotations"]
            assert notes["runbook_url"].endswith(f"docs/runbook.md#{rule['alert'].lower()}"), rule["alert"]
            assert notes["summary"] and notes["description"], rule["alert"]
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
    for anchor in re.findall(r"\(#(\w+)\)", text):
        assert anchor in [entry.lower() for entry in entries], anchor
    known = status_fields()
    for entry, body in re.findall(r"^## (\w+)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        look = re.search(r"\*\*Look(?:, do)?\.\*\*(.*?)(?=\*\*Do\.\*\*|\Z)", body, re.DOTALL).group(1)
        fields = {field for field in re.findall(r"`([^`]+)`", look) if field in known}
        assert fields or "scm-gateway call" in look or "As for [" in look, f"{entry}: names no field of /status and no call"
    for field in re.findall(r"`((?:projects\[\]|listeners|connections|telemetry|calls|watches)\.[\w.\[\]]+)`", text):
        assert field in known, f"the runbook names {field}, which /status does not have"
    tests = Path("tests/deploy/alerts_test.yaml").read_text()
    for alert in alerts:
        assert f"alertname: {alert}\n" in tests, f"{alert} has no test"


def check_dashboard():
    """Every panel has a description and uses the selected data source, and every metric has a panel."""
    assert DASHBOARD["uid"] and DASHBOARD["description"]
    for panel in panels():
        assert panel["description"] and panel["datasource"]["uid"] == "$ds", panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    shown = {name for panel in panels() for query in panel["targets"] for name, _ in selectors(filled(query["expr"]))}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    documented = {row[3].strip("`") for row in table("## Metrics")} - {"target_info"}
    assert shown == documented, f"without a panel, or not documented: {shown ^ documented}"


def check_collector():
    """The Collector configuration is complete and accepts the default protocol of the gateway."""
    collector = yaml.safe_load(Path("deploy/observability/otel-collector.yaml").read_text())
    for name, pipeline in collector["service"]["pipelines"].items():
        for kind in ("receivers", "processors", "exporters"):
            for part in pipeline[kind]:
                assert part in collector[kind], f"{name}: no {kind} {part}"
    assert "http" in collector["receivers"]["otlp"]["protocols"]


def call(address, folder):
    """Makes a call that succeeds and one that is rejected."""
    messages, services = client(folder)
    with grpc.insecure_channel(address) as channel:
        stub = services.CertificateServiceStub(channel)
        stub.SaveInfo(sample(messages))
        try:
            stub.SaveInfo(messages.SaveInfoRequest(cert_id="!"))
        except grpc.RpcError:
            pass


def scrape(admin, accept):
    """Returns the content type and the page of `/metrics`."""
    request = urllib.request.Request(f"http://{admin}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def check_formats(admin):
    """Both formats have the same metrics for a parser that is not Prometheus."""
    content_type, page = scrape(admin, OPEN_METRICS)
    assert content_type == f"{OPEN_METRICS}; charset=utf-8", content_type
    families = list(open_metrics.text_string_to_metric_families(page))
    content_type, page = scrape(admin, "text/plain")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8", content_type
    others = list(text_format.text_string_to_metric_families(page))
    described = [(one.name, one.documentation, one.type) for one in families]
    assert described == [(one.name, one.documentation, one.type) for one in others]
    units = {one.name: one.unit for one in families}
    assert units["rpc_server_call_duration_seconds"] == units["process_cpu_seconds"] == "seconds"
    assert units["process_resident_memory_bytes"] == "bytes"

    def series(found):
        """Returns name and labels of all samples, with the bounds of buckets as numbers."""
        samples = [sample for family in found for sample in family.samples]
        return [(one.name, {**one.labels, "le": float(one.labels.get("le", 0))}) for one in samples]

    assert series(families) == series(others)


def check_live():
    """Prometheus has data for every panel of a healthy gateway, and no alert fires."""
    with Lab(TARGET) as lab:
        gateway, admin, _ = lab.gateway(lab.emulator())
        call(gateway, lab.folder)
        check_formats(admin)
        prometheus = Prometheus(lab, admin, [ALERTS_FILE])
        # Only OpenMetrics has units.
        name = "rpc_server_call_duration_seconds"
        metadata = until("the metadata", lambda: prometheus.ask("metadata", metric=name).get(name))
        assert metadata[0]["unit"] == "seconds", metadata
        # This gateway has no TLS, no temporary credentials and no failures, so these panels may be empty.
        may_be_empty = {"Calls that failed, by RPC", "Temporary credentials", "Exchanges for temporary credentials", "Certificates",
                        "Requests that failed"}
        for panel in panels():
            if panel["title"] in may_be_empty:
                continue
            for query in panel["targets"]:
                expression = filled(query["expr"])
                if "refused" in expression or "_tls_" in expression:
                    continue
                until(f"data for {panel['title']}: {expression}", lambda: prometheus.value(expression))
        until("a recorded ratio", lambda: prometheus.value("scm_gateway:calls_failed:ratio_rate5m"))
        firing = [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]]
        assert not firing, f"a healthy gateway alerts: {firing}"


for check in (check_names, check_documents, check_runbook, check_dashboard, check_collector, check_live):
    check()
    print(f"Passed: {check.__doc__.splitlines()[0]}")
