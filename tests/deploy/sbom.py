"""Checks the SBOM of the image: valid CycloneDX, and only packages of Cargo.lock.

Usage: sbom.py FILE, from the root of the repository.
"""

import json
import sys
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = Path(sys.argv[1]).read_text(encoding="utf-8")
sbom = json.loads(text)
problem = JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"])).validate_str(text)
assert problem is None, problem

gateway = sbom["metadata"]["component"]
assert gateway["purl"] == f"pkg:cargo/scm-gateway@{gateway['version']}", gateway
locked = {f"pkg:cargo/{one['name']}@{one['version']}" for one in tomllib.loads(Path("Cargo.lock").read_text())["package"]}
listed = {component["purl"] for component in sbom["components"]}
assert listed <= locked, listed - locked
for name in ("tonic", "hyper", "rustls", "aws-lc-sys"):
    assert any(purl.startswith(f"pkg:cargo/{name}@") for purl in listed), name
print(f"The SBOM is valid CycloneDX {sbom['specVersion']} and lists {len(listed)} packages, all of Cargo.lock.")
