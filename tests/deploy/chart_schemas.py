"""Validates objects against the schemas of Kubernetes and of the custom resources.

Usage: chart_schemas.py FOLDER, from the root of the repository, with the renders that `chart.py` wrote to FOLDER. CEL
rules are not checked, because only an API server evaluates them.
"""

import copy
import re
import sys
import tarfile
from pathlib import Path

import kubernetes_validate
import yaml

(FOLDER,) = sys.argv[1:]
KUBERNETES = ("1.30", "1.34", "1.37")
# CustomResourceDefinitions of the upstream projects, outside the repository; may be missing.
CRDS = Path("../shared/crds.tar.gz")
KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
BOUNDS = {
    "minLength": lambda value, bound: not isinstance(value, str) or len(value) >= bound,
    "maxLength": lambda value, bound: not isinstance(value, str) or len(value) <= bound,
    "minItems": lambda value, bound: not isinstance(value, list) or len(value) >= bound,
    "maxItems": lambda value, bound: not isinstance(value, list) or len(value) <= bound,
    "minimum": lambda value, bound: not isinstance(value, (int, float)) or value >= bound,
    "maximum": lambda value, bound: not isinstance(value, (int, float)) or value <= bound,
    "pattern": lambda value, bound: not isinstance(value, str) or re.search(bound, value),
    "enum": lambda value, bound: value in bound,
}


class Unfit(Exception):
    """An object that the API server would reject."""


def objects():
    """Yields (render, object) of every render."""
    for path in sorted(Path(FOLDER).glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if one:
                yield path.stem, one


def is_custom(one):
    """Returns whether the kind comes from a CustomResourceDefinition."""
    group = one["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def hold_against_kubernetes(one):
    """Validates an object of Kubernetes for all versions."""
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Unfit(f"{one['kind']} for {version}: {error.message}") from error


def definitions():
    """Returns (apiVersion, kind) -> schema of the served versions."""
    found = {}
    with tarfile.open(CRDS) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive.getmembers()):
            for one in yaml.safe_load_all(archive.extractfile(member).read()):
                if not one or one["kind"] != "CustomResourceDefinition":
                    continue
                for version in one["spec"]["versions"]:
                    if version["served"]:
                        name = f"{one['spec']['group']}/{version['name']}"
                        found[name, one["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


def hold(value, schema, path):
    """Validates a value against the part of OpenAPI that these definitions use. Unknown fields are invalid."""
    kind = "integer or string" if schema.get("x-kubernetes-int-or-string") else schema.get("type")
    wanted = (int, str) if kind == "integer or string" else KINDS.get(kind, object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind not in ("boolean", None)):
        raise Unfit(f"{path} is not of type {kind}")
    for name, fits in BOUNDS.items():
        if name in schema and not fits(value, schema[name]):
            raise Unfit(f"{path}: {name} is {schema[name]}")
    for word, enough in (("allOf", all), ("anyOf", any), ("oneOf", lambda fit: sum(fit) == 1)):
        if word in schema and not enough([fits_shape(value, part, path) for part in schema[word]]):
            raise Unfit(f"{path} does not fit {word}")
    if isinstance(value, dict):
        hold_fields(value, schema, path)
    for index, inner in enumerate(value if isinstance(value, list) and "items" in schema else []):
        hold(inner, schema["items"], f"{path}[{index}]")


def hold_fields(value, schema, path):
    """Validates the fields of an object."""
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    if missing := set(schema.get("required", [])) - value.keys():
        raise Unfit(f"{path}: {missing} is missing")
    for key, inner in value.items():
        if key in known:
            hold(inner, known[key], f"{path}.{key}")
        elif isinstance(others, dict):
            hold(inner, others, f"{path}.{key}")
        elif not others and not schema.get("x-kubernetes-preserve-unknown-fields"):
            raise Unfit(f"{path}.{key} is unknown")


def fits_shape(value, part, path):
    """Returns whether one of several alternatives fits. An alternative names only the fields that it restricts."""
    if "not" in part and fits_shape(value, part["not"], path):
        return False
    try:
        hold(value, {**part, "x-kubernetes-preserve-unknown-fields": True}, path)
    except Unfit:
        return False
    return True


def hold_against_definition(one, known):
    """Validates a custom resource."""
    schema = known.get((one["apiVersion"], one["kind"]))
    if not schema:
        raise Unfit(f"{one['kind']} of {one['apiVersion']} is not served")
    body = {key: value for key, value in one.items() if key not in ("apiVersion", "kind", "metadata")}
    hold(body, schema, one["kind"])


def refused(one, change, check):
    """Returns whether the check rejects a changed object."""
    spoilt = copy.deepcopy(one)
    change(spoilt)
    try:
        check(spoilt)
    except Unfit:
        return True
    return False


def check_kubernetes():
    """Objects of Kubernetes are valid for all checked versions."""
    for name, one in objects():
        if is_custom(one):
            continue
        try:
            hold_against_kubernetes(one)
        except Unfit as error:
            raise AssertionError(f"{name}: {error}") from error
    deployment = next(one for _, one in objects() if one["kind"] == "Deployment")
    container = lambda one: one["spec"]["template"]["spec"]["containers"][0]
    assert refused(deployment, lambda one: container(one)["securityContext"].update(readOnlyRootFileSystem=True),
                   hold_against_kubernetes)
    assert refused(deployment, lambda one: one["spec"].update(replicas="two"), hold_against_kubernetes)


def check_custom_resources():
    """Custom resources match their definitions."""
    if not CRDS.exists():
        return f"No {CRDS}: custom resources were not checked."
    known = definitions()
    seen = {}
    for name, one in objects():
        if not is_custom(one):
            continue
        seen.setdefault((one["apiVersion"].partition("/")[0], one["kind"]), one)
        try:
            hold_against_definition(one, known)
        except Unfit as error:
            raise AssertionError(f"{name}: {error}") from error
    assert len(seen) == 11, sorted(seen)
    check = lambda one: hold_against_definition(one, known)
    for one in seen.values():
        assert refused(one, lambda it: it["spec"].update(unheardOf=1), check), f"{one['kind']}: an unknown field is accepted"
        assert refused(one, lambda it: it.update(apiVersion=f"{it['apiVersion']}0"), check), f"{one['kind']}: an unknown version is accepted"
        assert refused(one, lambda it: it.update(spec=[]), check), f"{one['kind']}: a list is accepted"
    peer = seen["security.istio.io", "PeerAuthentication"]
    assert refused(peer, lambda it: it["spec"]["mtls"].update(mode="STRIKT"), check), "an unknown enum value is accepted"
    return None


for step in (check_kubernetes, check_custom_resources):
    print(step() or step.__doc__, flush=True)
