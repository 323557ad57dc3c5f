"""Tests the gateway behind Envoy: mutual TLS, SPIFFE identities, forged headers, health checks, egress by SNI.

Usage: mesh.py TARGET_FOLDER ENVOY, from the root of the repository. `mesh.sh` installs the tools.
"""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import yaml

from lab import Lab, client, free_port, sample, until

ORDERS = "spiffe://example.org/ns/web/sa/orders"
REPORTS = "spiffe://example.org/ns/web/sa/reports"


def openssl(*arguments):
    """Runs openssl."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A CA for short-lived certificates."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
                f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt")

    def issue(self, who, names):
        """Returns the files of a new certificate and its key."""
        base = f"{self.folder}/{self.name}-{who}"
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=admin",
                "-addext", f"subjectAltName={names}", "-keyout", f"{base}.key", "-out", f"{base}.csr")
        openssl("x509", "-req", "-in", f"{base}.csr", "-CA", f"{self.folder}/{self.name}.crt", "-CAkey",
                f"{self.folder}/{self.name}.key", "-copy_extensions", "copy", "-days", "1", "-out", f"{base}.crt")
        return f"{base}.crt", f"{base}.key"


def sidecar(ports, certificate, key, ca, host):
    """Returns the shipped configuration with the ports and names of the test."""
    config = yaml.safe_load(Path("deploy/mesh/envoy-sidecar.yaml").read_text())
    config["admin"]["address"]["socket_address"]["port_value"] = ports["admin"]
    ingress, egress = config["static_resources"]["listeners"]
    ingress["address"]["socket_address"]["port_value"] = ports["ingress"]
    tls = ingress["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    tls["tls_certificates"][0]["certificate_chain"]["filename"] = certificate
    tls["tls_certificates"][0]["private_key"]["filename"] = key
    tls["validation_context"]["trusted_ca"]["filename"] = ca
    ingress["filter_chains"][0]["filters"][0]["typed_config"]["stream_idle_timeout"] = "1s"  # 5 minutes by default
    egress["address"]["socket_address"]["port_value"] = ports["egress"]
    egress["filter_chains"][0]["filter_chain_match"]["server_names"] = [host]
    gateway, scm = config["static_resources"]["clusters"]
    for cluster, address in ((gateway, ports["gateway"]), (scm, ports["scm"])):
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": address}
    return config


def status(call):
    """Returns the status of a call."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def main(target, envoy):
    with Lab(target) as lab:
        messages, services = client(lab.folder)
        ours, foreign = Authority(lab.folder, "ours"), Authority(lab.folder, "foreign")
        certificate, key = ours.issue("gateway", "URI:spiffe://example.org/ns/scm/sa/gateway,DNS:localhost")
        emulator = lab.emulator("--tls", str(lab.folder / "scm.pem"))
        ports = {name: free_port() for name in ("admin", "ingress", "egress")}
        ports["scm"] = int(emulator["SCM_GATEWAY__UPSTREAM__ENDPOINT"].rsplit(":", 1)[1])
        gateway, _, process = lab.gateway({
            **emulator,
            "SCM_GATEWAY__UPSTREAM__ENDPOINT": f"https://localhost:{ports['egress']}",
            "SCM_GATEWAY__UPSTREAM__CA_FILE": str(lab.folder / "scm.pem"),
            "SCM_GATEWAY__SERVER__TRUST_XFCC": "true",
            "SCM_GATEWAY__CALLERS__0__IDENTITY": ORDERS,
            "SCM_GATEWAY__CALLERS__0__METHODS": "SaveInfo,WatchCertificate",
            "SCM_GATEWAY__CALLERS__0__PROJECTS": "*",
        })
        ports["gateway"] = int(gateway.rsplit(":", 1)[1])
        path = lab.folder / "envoy.yaml"
        path.write_text(yaml.safe_dump(sidecar(ports, certificate, key, str(lab.folder / "ours.crt"), "localhost")))
        subprocess.run([envoy, "--mode", "validate", "-c", str(path)], check=True, capture_output=True)
        lab.start([envoy, "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn"])
        admin = f"http://127.0.0.1:{ports['admin']}"

        def is_healthy():
            with urllib.request.urlopen(f"{admin}/clusters?format=json", timeout=5) as answer:
                clusters = {one["name"]: one for one in json.load(answer)["cluster_statuses"]}
            hosts = clusters["scm-gateway"].get("host_statuses", [])
            return hosts and all(not host["health_status"].get("failed_active_health_check") for host in hosts)

        until("a healthy gateway in Envoy", is_healthy)

        def stub(issued):
            root = Path(lab.folder / "ours.crt").read_bytes()
            chain, private = (Path(one).read_bytes() for one in issued) if issued else (None, None)
            credentials = grpc.ssl_channel_credentials(root, private, chain)
            options = [("grpc.ssl_target_name_override", "localhost")]
            channel = grpc.secure_channel(f"127.0.0.1:{ports['ingress']}", credentials, options)
            return services.CertificateServiceStub(channel)

        def save(issued, **more):
            one = stub(issued)
            return status(lambda: one.SaveInfo(sample(messages), timeout=20, **more))

        code = grpc.StatusCode
        orders = ours.issue("orders", f"URI:{ORDERS}")
        reports = ours.issue("reports", f"URI:{REPORTS}")
        assert save(orders) == code.OK, "a listed caller"
        read = stub(orders)
        assert status(lambda: read.ReadInfo(messages.ReadInfoRequest(cert_id="scs1481110651012"))) == code.PERMISSION_DENIED
        assert save(reports) == code.PERMISSION_DENIED, "an unlisted caller"
        forged = (("x-forwarded-client-cert", f"URI={ORDERS}"),)
        assert save(reports, metadata=forged) == code.PERMISSION_DENIED, "an unlisted caller with a forged header"
        assert save(orders, metadata=(("x-forwarded-client-cert", f"URI={REPORTS}"),)) == code.OK, "a listed caller with a forged header"
        assert save(ours.issue("outside", "URI:spiffe://other.org/x")) == code.PERMISSION_DENIED, "a caller outside of the mesh"
        assert save(foreign.issue("orders", f"URI:{ORDERS}")) == code.UNAVAILABLE, "a certificate of another CA"
        assert save(None) == code.UNAVAILABLE, "without a certificate"
        draft = messages.WatchCertificateRequest(cert_id="scs1481110651012")
        watched = status(lambda: list(stub(orders).WatchCertificate(draft, timeout=4)))
        assert watched == code.DEADLINE_EXCEEDED, f"a watch that is silent ended with {watched}"
        print("Inbound passed: mutual TLS, SPIFFE identities, forged headers dropped, silent watches.")

        def refused_by_sni():
            import socket
            import ssl

            context = ssl.create_default_context(cafile=str(lab.folder / "scm.pem"))
            context.check_hostname = False
            with socket.create_connection(("127.0.0.1", ports["egress"]), 5) as raw:
                try:
                    with context.wrap_socket(raw, server_hostname="elsewhere.example"):
                        return False
                except (ssl.SSLError, ConnectionError):
                    return True

        assert refused_by_sni(), "egress to an unlisted host"
        print("Outbound passed: only the name of SCM is allowed.")

        process.send_signal(signal.SIGTERM)
        until("an unhealthy gateway in Envoy", lambda: not is_healthy())
        assert save(orders) in (code.UNAVAILABLE, code.OK), "a draining instance accepts calls or returns UNAVAILABLE"
        assert process.wait(30) == 0
        lab.running.remove(process)
        assert save(orders) == code.UNAVAILABLE
        print("Health passed: Envoy removes a draining gateway.")


main(*sys.argv[1:])
