"""Tests the renders and values of the chart: golden renders, documented and used values, rejected values.

Usage: chart.py HELM FOLDER [--accept], from the root of the repository. `chart.sh` installs the tools. Writes each
render to FOLDER/NAME.yaml for the checks of objects.
"""

import copy
import difflib
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HELM, FOLDER, *OPTIONS = sys.argv[1:]
CHART = Path("deploy/helm/scm-gateway")
HERE = Path("tests/deploy/chart")
PLAIN = Path("deploy/kubernetes/scm-gateway.yaml")
SHIPPED = {name: CHART / f"values-{name}.yaml" for name in ("istio", "linkerd", "mtls")}
OPTIONS_IN = {path.name.removesuffix(".in.yaml"): path for path in sorted(HERE.glob("*.in.yaml"))}
INPUTS = {"default": CHART / "values.yaml", **SHIPPED, **OPTIONS_IN}
# Section of the configuration -> keys that the chart sets from other values.
OWN_KEYS = {"server": {"listen", "plaintext", "trust_xfcc", "drain", "lame_duck"}, "admin": {"listen"}, "upstream": set(),
            "watch": set()}

# Invalid values -> text that the error message contains.
PROJECT = {"id": "one", "existingSecret": "one"}
SPARE = {"projects": [PROJECT, {"id": "two", "existingSecret": "two"}]}
CALLER = {"identity": "x.example.org", "methods": ["SaveInfo"], "projects": ["*"]}
OIDC = {"providerUrn": "iam::1:oidcProvider:a", "agencyUrn": "iam::1:agency:b", "audience": "c"}
POD = {"enabled": True}
METADATA = {"metadata_endpoint": "http://169.254.169.254"}
STS_NEEDED = "projects[0].oidc needs config.upstream.sts_endpoint, because the project has no region with STS"
TLS = {"tls": {"enabled": True}, "callers": [CALLER]}
BY_NAME = "has to be granted by name: add it to config.server.methods, too"
REFUSED = [
    ({"sk": "secret"}, "additional properties 'sk' not allowed"),
    ({"projects": [{**PROJECT, "sk": "secret"}]}, "additional properties 'sk' not allowed"),
    ({"projects": []}, "'/projects'"),
    ({"projects": [{**PROJECT, "id": "a b"}]}, "'/projects/0/id'"),
    ({"projects": [{**PROJECT, "domainId": "a b"}]}, "'/projects/0/domainId'"),
    ({"projects": [{"id": "one"}]}, "projects[0] has no source of credentials: set existingSecret, oidc, "),
    ({"projects": [PROJECT, {"id": "two"}], "defaultProject": "one"}, "projects[1] has no source of credentials"),
    ({"projects": [{**PROJECT, "oidc": OIDC}]}, "projects[0]: existingSecret and oidc exclude each other"),
    ({"projects": [{**PROJECT, "podIdentity": POD}]}, "projects[0]: existingSecret and podIdentity exclude each other"),
    ({"projects": [{"id": "one", "oidc": OIDC, "podIdentity": POD}]}, "projects[0]: oidc and podIdentity exclude each other"),
    *[({"projects": [{"id": "one", "oidc": {**OIDC, key: ""}}]}, "projects[0].oidc needs providerUrn, agencyUrn and audience")
      for key in OIDC],
    ({"projects": [{"id": "one", "oidc": {**OIDC, "agencyUrn": OIDC["providerUrn"]}}]}, "'/projects/0/oidc/agencyUrn'"),
    ({"projects": [{"id": "one", "oidc": {**OIDC, "expirationSeconds": 599}}]}, "'/projects/0/oidc/expirationSeconds'"),
    ({"projects": [{"id": "one", "oidc": {**OIDC, "duration": 3600}}]}, "'/projects/0/oidc/duration'"),
    ({"projects": [{"id": "one", "oidc": {**OIDC, "sessionName": "a b"}}]}, "'/projects/0/oidc/sessionName'"),
    ({"projects": [{"id": "one", "oidc": {**OIDC, "policyIds": ["x"] * 21}}]}, "'/projects/0/oidc/policyIds'"),
    ({"projects": [{"id": "one", "oidc": OIDC, "region": "my-kualalumpur-1"}]}, STS_NEEDED),
    ({"projects": [{"id": "one", "oidc": OIDC, "endpoint": "https://scm.example.org"}]}, STS_NEEDED),
    ({"projects": [{"id": "one", "oidc": OIDC}], "config": {"upstream": {"region": "my-kualalumpur-1"}}}, STS_NEEDED),
    ({"config": {"upstream": {"sts_endpoint": "https://sts.example.org/v5"}}}, "'/config/upstream/sts_endpoint'"),
    ({"projects": [{"id": "one", "podIdentity": {**POD, "credentialsFullUri": "http://127.0.0.1/v1"}}]}, "need each other"),
    ({"projects": [{"id": "one", "podIdentity": {**POD, "authorizationTokenFile": "/token"}}]}, "need each other"),
    ({"projects": [{"id": "one", "podIdentity": {**POD, "plainHttpHost": "agent"}}]}, "plainHttpHost needs credentialsFullUri"),
    ({"projects": [{"id": "one", "oidc": {"duration": "2h"}}], "config": {"upstream": METADATA}}, "projects[0].oidc needs providerUrn, agencyUrn and audience"),
    ({"projects": [{"id": "one", "podIdentity": {"plainHttpHost": "agent"}}], "config": {"upstream": METADATA}}, "projects[0].podIdentity needs enabled: true"),
    ({"projects": [{"id": "one", "podIdentity": POD}], "config": {"upstream": METADATA}}, "projects[0].podIdentity excludes config.upstream.metadata_endpoint"),
    ({"projects": [PROJECT, {"id": "two", "podIdentity": POD}], "defaultProject": "one"},
     "projects[1].podIdentity needs credentialsFullUri and authorizationTokenFile"),
    ({"projects": [{**PROJECT, "region": "eu-west-1"}]}, "'/projects/0/region'"),
    ({"projects": [{**PROJECT, "endpoint": "http://scm.example.org"}]}, "'/projects/0/endpoint'"),
    ({"projects": [{**PROJECT, "endpoint": "https://scm.example.org", "region": "cn-north-4"}]}, "'/projects/0'"),
    (SPARE, "'/defaultProject'"),
    ({**SPARE, "defaultProject": "three"}, "defaultProject must be one of projects[].id"),
    ({"replicas": 0}, "'/replicas'"),
    ({"image": {"digest": "latest"}}, "'/image/digest'"),
    ({"image": {"pullPolicy": "Sometimes"}}, "'/image/pullPolicy'"),
    ({"config": {"server": {"listen": "0.0.0.0:1"}}}, "additional properties 'listen' not allowed"),
    ({"config": {"server": {"max_in_flite": 1}}}, "additional properties 'max_in_flite' not allowed"),
    ({"config": {"server": {"max_message_size": 1000}}}, "'/config/server/max_message_size'"),
    ({"config": {"watch": {"max": 0}}}, "'/config/watch/max'"),
    ({"config": {"upstream": {"proxy": "http://me:secret@proxy"}}}, "'/config/upstream/proxy'"),
    ({"callers": [CALLER]}, "'/callers'"),
    ({"tls": {"enabled": True}}, "'/callers'"),
    ({**TLS, "callers": [{**CALLER, "methods": ["DropInfo"]}]}, "'/callers/0/methods/0'"),
    ({**TLS, "callers": [{**CALLER, "methods": ["*", "DeleteCsr"]}]}, f"callers: DeleteCsr {BY_NAME}"),
    ({**TLS, "callers": [CALLER, {**CALLER, "methods": ["DeleteCsr"]}], "config": {"server": {"methods": ["*", "ExportCertificate"]}}},
     f"callers: DeleteCsr {BY_NAME}"),
    ({"istio": {"enabled": True, "callers": [{"principal": "x/ns/a/sa/b", "methods": ["ExportCertificate"]}]}},
     f"istio.callers: ExportCertificate {BY_NAME}"),
    ({**TLS, "istio": {"enabled": True}}, "'/istio/enabled'"),
    ({**TLS, "certificate": {"enabled": True}}, "'/certificate/issuerRef/name'"),
    ({"certificate": {"enabled": True, "issuerRef": {"name": "x"}}}, "'/certificate/enabled'"),
    ({"istio": {"enabled": True}, "linkerd": {"enabled": True, "identities": ["x"]}}, "'/linkerd/enabled'"),
    ({"istio": {"callers": [{"principal": "spiffe://x/ns/a/sa/b", "methods": ["SaveInfo"]}]}}, "'/istio/callers/0/principal'"),
    ({"istio": {"enabled": True, "identity": True}}, "'/istio/callers'"),
    ({"istio": {"callers": [{"principal": "x/ns/a/sa/b", "methods": ["SaveInfo"]}], "identity": True}}, "'/istio/enabled'"),
    ({"linkerd": {"enabled": True}}, "'/linkerd/identities'"),
    ({"externalSecret": {"enabled": True, "secretStoreRef": {"name": "x"}}}, "'/projects/0/remote'"),
    ({"shutdown": {"drain": "soon"}}, "'/shutdown/drain'"),
    ({"shutdown": {"preStop": 0}}, "'/shutdown/preStop'"),
    ({"shutdown": {"lameDuck": 11}}, "shutdown.lameDuck is more than half of shutdown.drain"),
    ({"autoscaling": {"enabled": True, "minReplicas": 9}}, "autoscaling.minReplicas is more than maxReplicas"),
    ({"telemetry": {"otlpProtocol": "http/json"}}, "'/telemetry/otlpProtocol'"),
    ({"extraVolumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "y"}]}, "'/extraVolumeMounts/0'"),
    ({"podLabels": {"x": True}}, "'/podLabels/x'"),
]


def helm(*arguments):
    """Runs helm."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def template(values):
    """Renders the chart with these values, a file or a dict."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if isinstance(values, dict):
            yaml.safe_dump(values, file)
            file.flush()
            values = file.name
        return helm("template", "scm-gateway", str(CHART), "--namespace", "scm", "-f", str(values))


def golden(path, text):
    """Compares a text with the accepted one."""
    if "--accept" in OPTIONS:
        path.write_text(text)
    known = path.read_text() if path.exists() else ""
    difference = "\n".join(difflib.unified_diff(known.splitlines(), text.splitlines(), str(path), "now", lineterm=""))
    assert not difference, f"{difference}\n(`tests/deploy/chart.sh --accept` accepts the change)"


def without_copies(text):
    """Returns a render without the documents that copy a file, because chart_fits.py compares those."""
    parts = re.split(r"^(?=---$)", text, flags=re.MULTILINE)
    copies = re.compile(r"^# Source: .*/(prometheusrule|dashboard)\.yaml$", re.MULTILINE)
    return "".join(part for part in parts if not copies.search(part))


def check_renders():
    """The chart lints, and its renders equal the golden ones."""
    for name, values in INPUTS.items():
        linted = helm("lint", "--strict", str(CHART), "-f", str(values))
        assert linted.returncode == 0, linted.stdout + linted.stderr
        done = template(values)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        (Path(FOLDER) / f"{name}.yaml").write_text(done.stdout)
        if name == "default":
            head = "# The chart's default render, for use without Helm. Written by `tests/deploy/chart.sh --accept`.\n"
            golden(PLAIN, head + done.stdout)
        else:
            golden(HERE / f"{name}.out.yaml", without_copies(done.stdout))


def check_refused():
    """Invalid values are rejected with the right message."""
    for bad, reason in REFUSED:
        done = template(bad)
        assert done.returncode != 0 and reason in done.stderr, f"{bad}: {done.stderr or 'accepted'}"


def comment_above(lines, at):
    """Returns the comment above a line. In a list entry, the first comment follows the dash."""
    words = []
    while at > 0 and re.match(r"\s*(- )?#", lines[at - 1]):
        at -= 1
        words.insert(0, lines[at].strip().removeprefix("- ").removeprefix("#").strip())
    return " ".join(words)


def documented(node, schema, lines, path=""):
    """Yields (path, default or None for a section, comment) of each value. The schema must have the same keys."""
    known = schema["properties"].keys() - {"global"}
    keys = [key.value for key, _ in node.value]
    assert known == set(keys), f"{path}: {known ^ set(keys)} is missing in values.yaml or in its schema"
    for key, value in node.value:
        here, inner = f"{path}{key.value}", schema["properties"][key.value]
        comment = comment_above(lines, key.start_mark.line)
        assert comment, f"{here} has no comment"
        if "items" in inner and value.value and "properties" in inner["items"]:
            yield here, None, comment
            yield from documented(value.value[0], inner["items"], lines, f"{here}[].")
        elif isinstance(value, yaml.MappingNode) and value.value and "properties" in inner:
            yield here, None, comment
            yield from documented(value, inner, lines, f"{here}.")
        else:
            entry = inner.get("items", {})
            for name in entry.get("required", []) if entry.get("additionalProperties") is False else []:
                assert f"`{name}" in comment or f"{{{name}:" in comment, f"the comment of {here} does not mention {name}"
            yield here, yaml.safe_load(yaml.serialize(value)), comment


def values_documented():
    """Returns the documentation of every value."""
    text = (CHART / "values.yaml").read_text()
    return list(documented(yaml.compose(text), json.loads((CHART / "values.schema.json").read_text()), text.splitlines()))


def check_documented():
    """Every value has a comment, the README has the same table, and the configuration keys are those of the gateway."""
    table = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, comment in values_documented():
        shown = "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
        table.append(f"| `{path}` | {shown} | {comment} |")
    readme = CHART / "README.md"
    golden(readme, readme.read_text().partition("## Values\n")[0] + "## Values\n\n" + "\n".join(table) + "\n")

    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    sections = re.split(r"^(?:# )?\[+(\S+?)\]+$", Path("deploy/scm-gateway.toml").read_text(), flags=re.MULTILINE)
    gateway = dict(zip(sections[1::2], sections[2::2], strict=True))
    for section, own in OWN_KEYS.items():
        have = schema[section]["properties"].keys() | own
        want = set(re.findall(r"^(?:# )?([a-z_]+) = ", gateway[section], re.MULTILINE))
        assert have == want, f"config.{section}: {have ^ want} is missing in the schema or in deploy/scm-gateway.toml"


def leave_out(values, path):
    """Returns these values without one of them, or None if it is not set."""
    values = copy.deepcopy(values)
    at = values
    *way, last = path.replace("[]", ".[]").split(".")
    for step in way:
        at = at[0] if step == "[]" else at.get(step) if isinstance(at, dict) else None
        if not at:
            return None
    return values if at.pop(last, None) is not None else None


def check_used():
    """Every value has an effect: without it, the render differs or is rejected."""
    inputs = [(yaml.safe_load(path.read_text()), (Path(FOLDER) / f"{name}.yaml").read_text()) for name, path in INPUTS.items()
              if name != "default"]
    for path, default, _ in values_documented():
        if default is None:
            continue
        fewer = [(leave_out(values, path), known) for values, known in inputs]
        assert any(values is not None and template(values).stdout != known for values, known in fewer), f"{path} changes nothing"


def check_commands():
    """The commands of the READMEs work, with `template` instead of `install`."""
    for readme in (CHART / "README.md", Path("deploy/README.md")):
        commands = re.findall(r"^helm install .*$", readme.read_text().replace("\\\n", ""), re.MULTILINE)
        assert commands, f"{readme} has no `helm install` command"
        for command in commands:
            done = helm("template", *shlex.split(command)[2:])
            assert done.returncode == 0, f"{command}: {done.stderr}"


Path(FOLDER).mkdir(parents=True, exist_ok=True)
for check in (check_renders, check_refused, check_documented, check_used, check_commands):
    check()
    print(check.__doc__, flush=True)
