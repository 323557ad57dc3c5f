"""Renders the Helm chart and checks what comes out.

Usage: chart.py TARGET_FOLDER HELM [--accept], from the root of the repository. `chart.sh` installs what it needs.
"""

import difflib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

TARGET, HELM, *OPTIONS = sys.argv[1:]
CHART = Path("deploy/helm/scm-gateway")
# Name -> values; each is a golden render, tests/deploy/chart/NAME.yaml.
RENDERS = {"default": "values.yaml", "istio": "values-istio.yaml", "linkerd": "values-linkerd.yaml", "mtls": "values-mtls.yaml"}
PLAIN = Path("deploy/kubernetes/scm-gateway.yaml")
KUBERNETES = ("1.30", "1.34", "1.37")
# Schemas of the custom resources, beside the repository; they may be absent.
CRDS = Path("../shared/crds.tar.gz")


def helm(*arguments):
    """Runs helm."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def render(values, *more):
    """What the chart makes of these values."""
    done = helm("template", "scm-gateway", str(CHART), "--namespace", "scm", "-f", str(CHART / values), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def golden(path, text):
    """Compares with what was accepted."""
    if "--accept" in OPTIONS:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    known = path.read_text()
    difference = "\n".join(difflib.unified_diff(known.splitlines(), text.splitlines(), str(path), "now", lineterm=""))
    assert not difference, f"{difference}\n(`tests/deploy/chart.sh --accept` if that is meant)"


def objects(text):
    """The objects of a render."""
    return [one for one in yaml.safe_load_all(text) if one]


def of_kind(all_objects, kind):
    """Those of a kind."""
    return [one for one in all_objects if one["kind"] == kind]


def check_lint_and_renders():
    """It lints, and renders as it did when somebody last looked."""
    for values in RENDERS.values():
        done = helm("lint", "--strict", str(CHART), "-f", str(CHART / values))
        assert done.returncode == 0, done.stdout + done.stderr
    for name, values in RENDERS.items():
        golden(Path(f"tests/deploy/chart/{name}.yaml"), render(values))
    head = "# The chart's default render, for those who want no Helm; `tests/deploy/chart.sh --accept` writes it.\n"
    golden(PLAIN, head + render("values.yaml"))


def check_refused():
    """Values that cannot be meant are refused."""
    for bad in ("replicas=0", "sk=secret", "image.digest=latest", "projects[0].id=a b", "projects[0].sk=x", "tls.enabled=true",
                "shutdown.drain=soon", "telemetry.otlpProtocol=http/json", "callers[0].identity=x",
                "istio.callers[0].principal=spiffe://x", "image.pullPolicy=Sometimes"):
        done = helm("template", "x", str(CHART), "--set", bad)
        assert done.returncode != 0 and "schema" in done.stderr, f"{bad}: {done.stdout[:200]}{done.stderr}"


def check_documented():
    """Every value has its comment, and the schema knows it."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())
    for key in yaml.safe_load("\n".join(lines)):
        assert key in schema["properties"], key
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        near = lines[max(0, at - 3):at] + lines[at + 1:at + 3]
        assert any(line.strip().lstrip("- ").startswith("#") for line in near), f"{key} is not explained"
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for section, values in yaml.safe_load("\n".join(lines)).items():
        assert f".Values.{section}" in templates, f"{section} does nothing"
        if isinstance(values, dict) and section not in ("resources", "podSecurityContext", "securityContext"):
            for key in values:
                used = f".Values.{section}.{key}" in templates or (section == "image" and f".{key}" in templates)
                assert used, f"{section}.{key} does nothing"


def check_kubernetes():
    """Valid for these versions of Kubernetes."""
    for name, values in RENDERS.items():
        for one in objects(render(values)):
            if "." in one["apiVersion"].split("/")[0] and not one["apiVersion"].endswith(".k8s.io/v1"):
                continue
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    raise AssertionError(f"{name}: {one['kind']} for {version}: {error.message}") from error


def crds():
    """(group, version, kind) -> schema."""
    found = {}
    with tarfile.open(CRDS) as archive:
        for member in archive.getmembers():
            if not member.isfile():
                continue
            for one in yaml.safe_load_all(archive.extractfile(member).read()):
                if not one or one.get("kind") != "CustomResourceDefinition":
                    continue
                for version in one["spec"]["versions"]:
                    if version["served"]:
                        key = (one["spec"]["group"], version["name"], one["spec"]["names"]["kind"])
                        found[key] = version["schema"]["openAPIV3Schema"]
    return found


def fits(value, schema, path):
    """Whether a value fits the part of OpenAPI that these schemas use; unknown fields do not."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        assert isinstance(value, (int, str)), path
        return
    if kind:
        assert isinstance(value, kinds[kind]), f"{path} is no {kind}"
    if "enum" in schema:
        assert value in schema["enum"], f"{path} is none of {schema['enum']}"
    if "pattern" in schema and isinstance(value, str):
        assert re.search(schema["pattern"], value), f"{path} does not match {schema['pattern']}"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        open_to_all = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
        for need in schema.get("required", []):
            assert need in value, f"{path}.{need} is missing"
        for key, inner in value.items():
            if key in known:
                fits(inner, known[key], f"{path}.{key}")
            elif isinstance(open_to_all, dict):
                fits(inner, open_to_all, f"{path}.{key}")
            else:
                assert open_to_all or not known, f"{path}.{key} is unknown"
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            fits(inner, schema["items"], f"{path}[{index}]")


def check_custom_resources():
    """Custom resources fit the schemas of their projects."""
    if not CRDS.exists():
        print(f"no {CRDS}: custom resources were not checked")
        return
    known, seen = crds(), set()
    for values in RENDERS.values():
        for one in objects(render(values)):
            group, _, version = one["apiVersion"].rpartition("/")
            if "." not in group or group.endswith(".k8s.io"):
                continue
            key = (group, version, one["kind"])
            assert key in known, f"{key} is not served"
            fits({k: v for k, v in one.items() if k not in ("apiVersion", "kind", "metadata")},
                 {**known[key], "required": [], "properties": {k: v for k, v in known[key]["properties"].items()}}, one["kind"])
            seen.add(one["kind"])
    assert len(seen) >= 9, seen


def check_what_belongs_together():
    """Selectors hit the pods, named ports exist, times add up, secrets are mounted whole."""
    for values in RENDERS.values():
        every = objects(render(values))
        (deployment,) = of_kind(every, "Deployment")
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}

        def hits(selector):
            assert selector and selector.items() <= labels.items(), selector

        hits(deployment["spec"]["selector"]["matchLabels"])
        (service,) = of_kind(every, "Service")
        hits(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("PodMonitor", "selector"),
                            ("PeerAuthentication", "selector"), ("AuthorizationPolicy", "selector"), ("Server", "podSelector")):
            for one in of_kind(every, kind):
                if field in one["spec"]:
                    hits(one["spec"][field]["matchLabels"])
        for one in of_kind(every, "PodMonitor"):
            assert {end["port"] for end in one["spec"]["podMetricsEndpoints"]} <= ports
        for one in of_kind(every, "Server"):
            assert one["spec"]["port"] in ports
        for one in of_kind(every, "NetworkPolicy"):
            assert {port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]} <= ports
        for one in of_kind(every, "HorizontalPodAutoscaler"):
            assert one["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert "replicas" not in deployment["spec"], "two would decide"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        (config,) = [one for one in of_kind(every, "ConfigMap") if "scm-gateway.toml" in one["data"]]
        drain = int(re.search(r'^drain = "(\d+)s"', config["data"]["scm-gateway.toml"], re.MULTILINE)[1])
        stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert stop + drain < pod["spec"]["terminationGracePeriodSeconds"]
        for mount in container["volumeMounts"]:
            assert "subPath" not in mount, "it would never be updated"
        for volume in pod["spec"]["volumes"]:
            assert volume.get("secret", {"optional": False})["optional"] is False
        assert not of_kind(every, "Secret"), "a key would lie in the release"
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def check_configuration():
    """The gateway's own check takes every configuration that the chart makes."""
    with tempfile.TemporaryDirectory() as folder:
        made = {"ak": "AK", "sk": "SK"}
        for name, text in made.items():
            path = Path(folder) / name
            path.write_text(text)
            path.chmod(0o440)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                        "/CN=x", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"], check=True, capture_output=True)
        (Path(folder) / "ca.crt").write_text((Path(folder) / "tls.crt").read_text())
        for name, values in RENDERS.items():
            (config,) = [one for one in of_kind(objects(render(values)), "ConfigMap") if "scm-gateway.toml" in one["data"]]
            text = re.sub(r"/run/secrets/scm-gateway-(?:\d+|tls)", folder, config["data"]["scm-gateway.toml"])
            path = Path(folder) / "scm-gateway.toml"
            path.write_text(text)
            done = subprocess.run([f"{TARGET}/debug/scm-gateway", "--config", str(path), "--check"], env={}, capture_output=True,
                                  text=True, check=False)
            assert done.returncode == 0 and not done.stderr, f"{name}: {done.stderr}"


for check in (check_lint_and_renders, check_refused, check_documented, check_kubernetes, check_custom_resources,
              check_what_belongs_together, check_configuration):
    check()
    print(f"{check.__doc__.splitlines()[0]} Holds.")
