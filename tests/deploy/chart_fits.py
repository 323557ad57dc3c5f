"""Checks that the objects of each render are consistent, and that the gateway accepts its configuration.

Usage: chart_fits.py FOLDER GATEWAY, from the root of the repository, with the renders that `chart.py` wrote to FOLDER and
the binary of the gateway.
"""

import base64
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import yaml

FOLDER, GATEWAY = sys.argv[1:]
FILES = Path("deploy/helm/scm-gateway/files")
# Variables of a pod with pod identity. The address and the path are made up.
CCE = {"HC_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/v1/credentials",
       "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/run/secrets/cce/token"}
STS_REGIONS = ("cn-north-4", "ap-southeast-1")


class Render:
    """The objects of one render, and the parts that most checks use."""

    def __init__(self, path):
        self.name = path.stem
        self.all = [one for one in yaml.safe_load_all(path.read_text()) if one]
        (self.deployment,) = self.of("Deployment")
        self.pod = self.deployment["spec"]["template"]
        (self.container,) = self.pod["spec"]["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        (text,) = [one["data"]["scm-gateway.toml"] for one in self.of("ConfigMap") if "scm-gateway.toml" in one["data"]]
        self.config_text = text
        self.config = tomllib.loads(text)
        self.env = {one["name"]: one.get("value") for one in self.container["env"]}

    def of(self, kind):
        """Returns the objects of a kind."""
        return [one for one in self.all if one["kind"] == kind]


def check_names(render):
    """Every selector matches the pods, and every named port and object exists."""
    labels = render.pod["metadata"]["labels"]
    selectors = [render.deployment["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in render.of("Service")]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in render.pod["spec"].get("topologySpreadConstraints", [])]
    for kind in ("PodDisruptionBudget", "PodMonitor", "PeerAuthentication", "NetworkPolicy", "Server"):
        selectors += [one["spec"].get("selector", one["spec"].get("podSelector"))["matchLabels"] for one in render.of(kind)]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in render.of("AuthorizationPolicy") if "selector" in one["spec"]]
    selectors += [one["spec"]["workloadSelector"]["labels"] for one in render.of("Sidecar")]
    for selector in selectors:
        assert selector and selector.items() <= labels.items(), selector

    named = [render.container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    named += [port["targetPort"] for one in render.of("Service") for port in one["spec"]["ports"]]
    named += [end["port"] for one in render.of("PodMonitor") for end in one["spec"]["podMetricsEndpoints"]]
    named += [one["spec"]["port"] for one in render.of("Server")]
    named += [port["port"] for one in render.of("NetworkPolicy") for rule in one["spec"]["ingress"] for port in rule["ports"]]
    assert set(named) <= render.ports.keys() | {4143}, named
    numbers = [number for one in render.of("PeerAuthentication") for number in one["spec"]["portLevelMtls"]]
    numbers += [number for one in render.of("AuthorizationPolicy") for rule in one["spec"].get("rules", [])
                for to in rule["to"] for number in to["operation"]["ports"]]
    assert {int(number) for number in numbers} <= set(render.ports.values()), numbers
    listen = render.config["server"]["listen"]
    assert listen.endswith(f":{render.ports['grpc']}")
    # Kubelets, clients and sidecars connect to the pod's address, unless a Sidecar sets a defaultEndpoint.
    ways = [way for one in render.of("Sidecar") for way in one["spec"]["ingress"]]
    assert [way["defaultEndpoint"] for way in ways] == ([] if listen.startswith("0.0.0.0:") else [listen])
    assert {way["port"]["number"] for way in ways} <= {render.ports["grpc"]}
    assert render.config["admin"]["listen"].endswith(f":{render.ports['admin']}")

    there = {(one["kind"], one["metadata"]["name"]) for one in render.all}
    assert len(there) == len(render.all), "two objects have the same name"
    refer = [("ServiceAccount", render.pod["spec"]["serviceAccountName"])] if render.of("ServiceAccount") else []
    refs = [one["spec"]["scaleTargetRef"] for one in render.of("HorizontalPodAutoscaler")]
    for one in render.of("AuthorizationPolicy"):
        refs += [one["spec"]["targetRef"], *one["spec"]["requiredAuthenticationRefs"]] if "targetRef" in one["spec"] else []
    refer += [(ref["kind"], ref["name"]) for ref in refs]
    assert set(refer) <= there, refer
    (service,) = render.of("Service")
    for one in render.of("Certificate"):
        assert service["metadata"]["name"] in one["spec"]["dnsNames"]
    assert service["spec"]["clusterIP"] == "None" and [port["name"] for port in service["spec"]["ports"]] == ["grpc"]
    plain = "tls" not in render.config["server"]
    assert service["spec"]["ports"][0].get("appProtocol") == ("kubernetes.io/h2c" if plain else None)


def check_end(render):
    """The grace period covers preStop and the drain of the gateway, and a sidecar stays for the same time."""
    seconds = lambda key: int(re.fullmatch(r"(\d+)s", render.config["server"][key])[1])
    stop = render.container["lifecycle"]["preStop"]["sleep"]["seconds"] + seconds("drain")
    assert seconds("lame_duck") * 2 <= seconds("drain")
    grace = render.pod["spec"]["terminationGracePeriodSeconds"]
    assert stop < grace
    for key, value in render.pod["metadata"]["annotations"].items():
        if key == "proxy.istio.io/config":
            assert stop <= int(yaml.safe_load(value)["terminationDrainDuration"].removesuffix("s")) < grace
        if key.endswith("/proxy-wait-before-exit-seconds"):
            assert stop <= int(value) < grace
    rolling = render.deployment["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0 < rolling["maxSurge"]
    assert ("replicas" in render.deployment["spec"]) != bool(render.of("HorizontalPodAutoscaler")), "replicas and an autoscaler, or neither"


def check_way_out(render):
    """The policies allow egress to every host and port of the configuration."""
    upstream = render.config.get("upstream", {})
    from_env = {key.rpartition("__")[2].lower(): value for key, value in render.env.items() if key.startswith("SCM_GATEWAY__UPSTREAM__")}
    projects = render.config.get("projects", [from_env])

    def place(project):
        return project if project.keys() & {"endpoint", "region"} else upstream

    def endpoint(project):
        return place(project).get("endpoint") or f"https://scm.{place(project).get('region', 'cn-north-4')}.myhuaweicloud.com"

    def sts(project):
        region = None if "endpoint" in place(project) else place(project).get("region", "cn-north-4")
        assert "sts_endpoint" in upstream or region in STS_REGIONS, project
        return upstream.get("sts_endpoint") or f"https://sts.{region}.myhuaweicloud.com"

    port = lambda url: urlsplit(url).port or {"http": 80, "https": 443}[urlsplit(url).scheme]
    endpoints = [endpoint(project) for project in projects] + [sts(project) for project in projects if "oidc" in project]
    urls = [upstream["proxy"]] if "proxy" in upstream else list(endpoints)
    urls += [upstream["metadata_endpoint"]] if "metadata_endpoint" in upstream else []
    urls += [project["pod_identity"]["credentials_full_uri"] for project in projects if "pod_identity" in project]
    urls += [render.env[name] for name in ["OTEL_EXPORTER_OTLP_ENDPOINT"] if name in render.env]
    for policy in render.of("NetworkPolicy"):
        out = {(end["protocol"], end["port"]) for rule in policy["spec"]["egress"] for end in rule["ports"]}
        assert {("UDP", 53), ("TCP", 53)} | {("TCP", port(url)) for url in urls} <= out, out
        if render.of("PeerAuthentication"):
            assert ("TCP", 15012) in out
        if render.of("Server"):
            assert {("TCP", 8080), ("TCP", 8086), ("TCP", 8090)} <= out
    for entry in render.of("ServiceEntry"):
        assert set(entry["spec"]["hosts"]) == {urlsplit(url).hostname for url in endpoints}
        assert {one["number"] for one in entry["spec"]["ports"]} == {port(url) for url in endpoints}


def check_secrets(render):
    """Secrets are mounted as a whole, none is in the release, and every file of the chart is mounted."""
    assert not render.of("Secret")
    volumes = {volume["name"]: volume for volume in render.pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in render.container["volumeMounts"]}
    for mount in mounts.values():
        assert "subPath" not in mount, "a subPath is never updated"
        assert mount["readOnly"] is True
        secret = volumes[mount["name"]].get("secret")
        assert secret is None or (secret["optional"] is False and secret["defaultMode"] == 0o440)
    for path in map(Path, re.findall(r'^(?!authorization_)\w+_file = "(.+)"$', render.config_text, re.MULTILINE)):
        volume = volumes[mounts[str(path.parent)]["name"]]
        items = volume.get("secret", {}).get("items")
        items = [one["serviceAccountToken"] for one in volume["projected"]["sources"]] if "projected" in volume else items
        assert items is None or path.name in {item["path"] for item in items}, path
    wanted = {volume["secret"]["secretName"]: volume["secret"] for volume in volumes.values() if "secret" in volume}
    for one in render.of("ExternalSecret"):
        keys = {data["secretKey"] for data in one["spec"]["data"]}
        assert keys == {item["key"] for item in wanted[one["spec"]["target"]["name"]]["items"]}
    for one in render.of("Certificate"):
        assert one["spec"]["secretName"] in wanted
    assert render.pod["spec"]["automountServiceAccountToken"] is False


def check_monitoring(render):
    """Alerts and dashboard equal those in files/."""
    for one in render.of("PrometheusRule"):
        assert one["spec"] == yaml.safe_load((FILES / "alerts.yaml").read_text())
    for one in render.of("ConfigMap"):
        if "scm-gateway.json" in one["data"]:
            assert json.loads(one["data"]["scm-gateway.json"]) == json.loads((FILES / "dashboard.json").read_text())


def made_up_token():
    """Returns a JWT that is valid for an hour."""
    part = lambda claims: base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    claims = {"iss": "https://issuer.example.org", "aud": ["x"], "sub": "system:serviceaccount:scm:scm-gateway", "exp": int(time.time()) + 3600}
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


def check_configuration(render):
    """`scm-gateway --check` accepts the configuration, with local files instead of the mounted ones."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                        "/CN=x", "-keyout", f"{folder}/key", "-out", f"{folder}/crt"], check=True, capture_output=True)
        files = re.findall(r'^\w+_file = "(.+)"$', render.config_text, re.MULTILINE)
        env = {name: value for name, value in render.env.items() if name.startswith(("HUAWEICLOUD_", "SCM_GATEWAY__"))}
        if "HUAWEICLOUD_SDK_PROJECT_ID" in env:
            files.append(CCE["HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
            env |= CCE | {"HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": folder + files[-1]}
        for name in files:
            path = Path(folder + name)
            path.parent.mkdir(parents=True, exist_ok=True)
            made = {".crt": "crt", ".pem": "crt", ".key": "key"}.get(path.suffix)
            is_token = path.name.startswith("token")
            path.write_text((Path(folder) / made).read_text() if made else made_up_token() if is_token else "MADEUP")
            path.chmod(0o440)
        config = Path(folder) / "scm-gateway.toml"
        config.write_text(re.sub(r'^(\w+_file = ")', rf"\g<1>{folder}", render.config_text, flags=re.MULTILINE))
        done = subprocess.run([GATEWAY, "--config", str(config), "--check"], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr


renders = [Render(path) for path in sorted(Path(FOLDER).glob("*.yaml"))]
assert renders
for check in (check_names, check_end, check_way_out, check_secrets, check_monitoring, check_configuration):
    for one in renders:
        try:
            check(one)
        except AssertionError as error:
            raise AssertionError(f"{one.name}: {check.__doc__}") from error
    print(check.__doc__, flush=True)
