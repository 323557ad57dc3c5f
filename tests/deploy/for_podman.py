"""Prints a manifest for `podman play kube`: without ports (the pod uses the host network), and with credentials.

Usage: for_podman.py MANIFEST ACCESS_KEY SECRET_KEY ENDPOINT
"""

import sys

import yaml

MANIFEST, ACCESS_KEY, SECRET_KEY, ENDPOINT = sys.argv[1:]

kept = []
with open(MANIFEST, encoding="utf-8") as file:
    for one in yaml.safe_load_all(file):
        if one["kind"] == "ConfigMap":
            kept.append(one)
        if one["kind"] == "Deployment":
            one["spec"]["replicas"] = 1
            pod = one["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            for unknown in ("ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
                del container[unknown]
            container["env"].append({"name": "SCM_GATEWAY__PROJECTS__0__ENDPOINT", "value": ENDPOINT})
            for volume in pod["volumes"]:
                if "secret" in volume:
                    secret = volume["secret"]["secretName"]
            kept.append(one)
kept.insert(0, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "data": {"ak": ACCESS_KEY, "sk": SECRET_KEY}})
yaml.safe_dump_all(kept, sys.stdout)
