"""Holds objects against the schemas of Kubernetes and of the custom resources.

Usage: chart_schemas.py FOLDER, from the root of the repository, with the renders that `chart.py` left in FOLDER. Rules
in CEL, which only an API server evaluates, are not looked at.
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
# The projects' own CustomResourceDefinitions, beside the repository; they may be absent.
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
    """An object that its API would refuse."""


def objects():
    """(render, object) of every render."""
    for path in sorted(Path(FOLDER).glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if one:
                yield path.stem, one


def is_custom(one):
    """Whether its kind comes from a CustomResourceDefinition."""
    group = one["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def hold_against_kubernetes(one):
    """An object of Kubernetes itself, for all versions."""
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Unfit(f"{one['kind']} for {version}: {error.message}") from error


def definitions():
    """(apiVersion, kind) -> schema, of the versions that are served."""
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
    """A value against what these definitions use of OpenAPI. Unknown fields do not fit."""
    kind = "integer or string" if schema.get("x-kubernetes-int-or-string") else schema.get("type")
    wanted = (int, str) if kind == "integer or string" else KINDS.get(kind, object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind not in ("boolean", None)):
        raise Unfit(f"{path} is no {kind}")
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
    """The fields of an object."""
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
    """Whether one of several alternatives fits. They name only what they restrict: other fields are the schema's business."""
    if "not" in part and fits_shape(value, part["not"], path):
        return False
    try:
        hold(value, {**part, "x-kubernetes-preserve-unknown-fields": True}, path)
    except Unfit:
        return False
    return True


def hold_against_definition(one, known):
    """A custom resource."""
    schema = known.get((one["apiVersion"], one["kind"]))
    if not schema:
        raise Unfit(f"{one['kind']} of {one['apiVersion']} is not served")
    body = {key: value for key, value in one.items() if key not in ("apiVersion", "kind", "metadata")}
    hold(body, schema, one["kind"])


def refused(one, change, check):
    """Whether the check sees what is wrong with a changed object."""
    spoilt = copy.deepcopy(one)
    change(spoilt)
    try:
        check(spoilt)
    except Unfit:
        return True
    return False


def check_kubernetes():
    """What is Kubernetes' own is valid for all versions looked at."""
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
    """Custom resources fit their definitions."""
    if not CRDS.exists():
        return f"No {CRDS}: custom resources were held against nothing."
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
        assert refused(one, lambda it: it["spec"].update(unheardOf=1), check), f"{one['kind']}: an unknown field passes"
        assert refused(one, lambda it: it.update(apiVersion=f"{it['apiVersion']}0"), check), f"{one['kind']}: a version passes"
        assert refused(one, lambda it: it.update(spec=[]), check), f"{one['kind']}: a list passes"
    peer = seen["security.istio.io", "PeerAuthentication"]
    assert refused(peer, lambda it: it["spec"]["mtls"].update(mode="STRIKT"), check), "an unknown word passes"
    return None


for step in (check_kubernetes, check_custom_resources):
    print(step() or step.__doc__, flush=True)
