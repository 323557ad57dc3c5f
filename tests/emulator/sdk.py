"""Calls every v3 operation of the emulator with the vendor's SDK, and compares its models with the responses.

Usage: sdk.py TARGET_DIRECTORY, from the root of the repository. `sdk.sh` installs the SDK.
"""

import importlib
import json
import re
import sys
from pathlib import Path

from huaweicloudsdkcore.auth.credentials import BasicCredentials, GlobalCredentials
from huaweicloudsdkcore.client import ClientBuilder
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkscm.v3 import ScmClient

from lab import Lab, until
from sdk_models import compare, only_loopback

MODELS = importlib.import_module("huaweicloudsdkscm.v3")
OPERATIONS = {operation["name"]: operation for operation in json.loads(Path("tests/operations.json").read_text())
              if operation["api"] == "v3"}
CASES = json.loads(Path("tests/wire_v3.json").read_text())["cases"]
# The state in which an operation is allowed, where that is not PAID.
STATES = {"CancelCertificateRequest": "CHECKING_DOMAIN",
          **dict.fromkeys(["BatchPushCertificate", "DeleteCertificate", "DeployCertificate", "ExportCertificate",
                           "PushCertificate"], "ISSUED")}
# The cases that SCM rejects: the CSR is for another domain, and the certificate has no chain.
REJECTED = {("ApplyCertificate", "full, non-ASCII"): "SCM.0005", ("ImportCertificate", "minimal"): "SCM.0006"}
# The keys that a response may lack.
OPTIONAL = {"ExportCertificate": {"private_key", "enc_certificate", "enc_private_key"}, "UpdateCsr": {"csr"},
            "ListCertificatesByTag": {"resources"}}


def snake(name):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def call(client, name, arguments):
    """Calls an operation with arguments side by side. `items` is a body that is an array."""
    operation = OPERATIONS[name]
    request = getattr(MODELS, f"{name}Request")()
    places = operation["path_params"] + operation["query"]
    for field in places:
        if field["name"] in arguments:
            setattr(request, field["name"], arguments[field["name"]])
    rest = {key: value for key, value in arguments.items() if all(field["name"] != key for field in places)}
    if "body_model" in operation:
        model = getattr(MODELS, operation["body_model"])
        request.body = [model(**item) for item in rest["items"]] if "items" in rest else model(**rest)
    response = getattr(client, snake(name))(request)
    assert response.status_code in operation["success_status"], (name, response.status_code)
    if response.status_code == 204:
        assert not response.raw_content, name
    elif response.raw_content:
        compare(name, response, json.loads(response.raw_content), OPTIONAL.get(name, set()))
    return response


def rejected(client, name, arguments):
    """Returns status and code of an error."""
    try:
        call(client, name, arguments)
    except ServiceResponseException as error:
        return error.status_code, error.error_code
    raise AssertionError(f"{name} was not rejected")


def prepared():
    """Yields the cases with ids of their own, and the arguments of an emulator that begins with them."""
    flags, cases = [], []
    for number, case in enumerate(CASES):
        text = json.dumps(case["arguments"])
        for old in set(re.findall(r"scs\d{13}", text)):
            new = f"scs{number:03}{old[6:]}"
            text = text.replace(old, new)
            flags += ["--certificate", f"{new}={STATES.get(case['operation'], 'PAID')}"]
        if "Csr" in case["operation"] and (csr := re.search(r'"id": "([0-9a-f]{32})"', text)):
            new = f"{number:03}{csr[1][3:]}"
            text = text.replace(csr[1], new)
            flags += ["--csr", new]
        cases.append((case["operation"], case["case"], json.loads(text)))
    return flags, cases


def every_case(client, cases):
    for name, case, arguments in cases:
        code = REJECTED.get((name, case))
        if code:
            assert rejected(client, name, arguments) == (400, code), (name, case)
        else:
            call(client, name, arguments)
    assert {name for name, *_ in cases} == set(OPERATIONS), "every v3 operation is called"


def life(client):
    """Orders a certificate, applies with a CSR of the store, waits, uses it, and deletes it."""
    order = call(client, "SubscribeCertificate", {
        "cert_brand": "GEOTRUST", "cert_type": "DV_SSL_CERT", "domain_type": "SINGLE_DOMAIN", "effective_time": 1,
        "domain_numbers": 1, "order_number": 1, "agree_privacy_protection": True})
    cert_id = order.cert[0].cert_id
    by_id = {"certificate_id": cert_id}
    csr = call(client, "CreateCsr", {"name": "shop", "domain_name": "shop.example.com", "private_key_algo": "EC_P256",
                                     "usage": "PERSONAL"})
    request = call(client, "ShowCsr", {"id": csr.id}).csr
    assert request.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    application = {**by_id, "domain": "shop.example.com", "applicant_name": "Ann Example", "applicant_phone": "13000000001",
                   "applicant_email": "ann@example.com", "agree_privacy_protection": True, "domain_method": "DNS"}
    assert call(client, "ApplyCertificate", {**application, "csr": request}).request_info == "success"
    shown = call(client, "ShowCertificate", by_id)
    assert (shown.status, shown.authentification[0].record_type) == ("CHECKING_DOMAIN", "TXT")
    call(client, "CancelCertificateRequest", by_id)
    until("the withdrawal", lambda: call(client, "ShowCertificate", by_id).status == "PAID")
    call(client, "ApplyCertificate", application)
    until("the certificate", lambda: call(client, "ShowCertificate", by_id).status == "ISSUED")
    assert "PRIVATE KEY" in call(client, "ExportCertificate", by_id).private_key
    assert rejected(client, "CancelCertificateRequest", by_id) == (400, "SCM.0010")
    call(client, "PushCertificate", {**by_id, "target_project": "cn-north-4", "target_service": "WAF"})
    pushed = call(client, "BatchPushCertificate", {**by_id, "target_projects": ["cn-north-4", "nowhere"], "target_service": "ELB"})
    assert [bool(result.cert_id) for result in pushed.results] == [True, False]
    deployed = call(client, "DeployCertificate", {**by_id, "service_name": "CDN", "resources": [
        {"domain_name": "static.example.com"}, {"domain_name": "nowhere"}]})
    assert [failure.resource for failure in deployed.failure_list] == ["nowhere"]
    used = call(client, "ListDeployedResources", {"certificate_ids": [cert_id], "service_names": ["ALL"]})
    assert used.results[0].total_num == 1
    call(client, "CreateCertificateTag", {"resource_id": cert_id, "tag": {"key": "sdk", "value": "yes"}})
    found = call(client, "ListCertificatesByTag", {"resource_instances": "resource_instances", "action": "filter",
                                                   "tags": [{"key": "sdk", "values": []}]})
    assert [resource.resource_detail.cert_id for resource in found.resources] == [cert_id]
    listed = call(client, "ListCertificates", {"content": "shop.example", "status": "ISSUED"})
    assert cert_id in [row.id for row in listed.certificates]
    call(client, "DeleteCertificate", by_id)
    assert rejected(client, "ShowCertificate", by_id) == (404, "SCM.0008")
    call(client, "DeleteCsr", {"id": csr.id})
    assert rejected(client, "ShowCsr", {"id": csr.id}) == (400, "SCM.0707")


def main():
    flags, cases = prepared()
    with Lab(sys.argv[1]) as lab:
        variables = lab.emulator("--review", "300", *flags)
        key = variables["HUAWEICLOUD_SDK_AK"], variables["HUAWEICLOUD_SDK_SK"]
        client = lambda credentials: (ClientBuilder(ScmClient, "GlobalCredentials,BasicCredentials")
                                      .with_credentials(credentials)
                                      .with_endpoint(variables["SCM_GATEWAY__UPSTREAM__ENDPOINT"]).build())
        sys.addaudithook(only_loopback)
        by_domain = client(GlobalCredentials(*key, variables["HUAWEICLOUD_SDK_DOMAIN_ID"]))
        every_case(by_domain, cases)
        life(by_domain)
        by_project = client(BasicCredentials(*key, variables["HUAWEICLOUD_SDK_PROJECT_ID"]))
        call(by_project, "ListCertificates", {})
        print(f"the vendor's SDK made {len(cases)} calls of {len(OPERATIONS)} operations, and a certificate's life")


main()
