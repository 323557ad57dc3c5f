"""The panels of the dashboard, and a Prometheus that scrapes the gateway and runs their queries."""

import json
import urllib.parse
import urllib.request
from pathlib import Path

from lab import free_port, until

DASHBOARD = json.loads(Path("deploy/helm/scm-gateway/files/dashboard.json").read_text())


def panels(row=None):
    """Yields the panels of all rows, or of one row."""
    of_row = None
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            of_row = panel["title"]
        elif row in (None, of_row):
            yield panel


def filled(expression, rate_interval="1m"):
    """Returns a query with the variables of Grafana replaced."""
    return expression.replace("$__rate_interval", rate_interval).replace('"$job"', '".*"')


class Prometheus:
    """A real Prometheus that scrapes one gateway every second."""

    def __init__(self, lab, admin, rules=()):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(Path(rule).resolve()) for rule in rules],
            "scrape_configs": [{"job_name": "scm-gateway", "static_configs": [{"targets": [admin]}]}],
        }
        path = lab.folder / "prometheus.yml"
        path.write_text(json.dumps(config))  # JSON is valid YAML
        port = free_port()
        lab.start(["prometheus", f"--config.file={path}", f"--storage.tsdb.path={lab.folder}/data",
                   f"--web.listen-address=127.0.0.1:{port}"])
        self.base = f"http://127.0.0.1:{port}/api/v1"
        until("a scrape", lambda: [one for one in self.value("up") if one["value"][1] == "1"])

    def ask(self, what, **parameters):
        """Returns the data of an API endpoint."""
        with urllib.request.urlopen(f"{self.base}/{what}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, query):
        """Returns the current result of a query."""
        return self.ask("query", query=query)["result"]

    def over_time(self, query, start, end):
        """Returns the results of a query for every second between two times."""
        return self.ask("query_range", query=query, start=start, end=end, step=1)["result"]
