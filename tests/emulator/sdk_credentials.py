"""Gets temporary credentials from the emulator with the vendor's SDK, by OIDC, pod identity and the metadata service, and
calls SCM with them. Then the gateway does the same in front of the same services.

Usage: sdk_credentials.py TARGET_DIRECTORY, from the root of the repository. `sdk.sh` installs the SDK.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from huaweicloudsdkcore.auth.credentials import GlobalCredentials
from huaweicloudsdkcore.auth.internal import MetadataAccessor
from huaweicloudsdkcore.auth.provider import (MetadataCredentialProvider, OidcStsCredentialProvider,
                                              PodIdentityCredentialProvider)
from huaweicloudsdkcore.client import ClientBuilder
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkscm.v3 import ListCertificatesRequest, ScmClient
from huaweicloudsdksts.v1 import (AssumeAgencyWithOIDCReqBody, AssumeAgencyWithOIDCRequest, StsClient)

from lab import Lab
from sdk_models import compare, only_loopback


def call(credentials, variables):
    """Lists the certificates. Returns the access key that signed the call."""
    credentials.with_project_id(variables["HUAWEICLOUD_SDK_PROJECT_ID"])
    client = (ClientBuilder(ScmClient, "GlobalCredentials,BasicCredentials").with_credentials(credentials)
              .with_endpoint(variables["SCM_GATEWAY__UPSTREAM__ENDPOINT"]).build())
    assert client.list_certificates(ListCertificatesRequest()).status_code == 200
    assert credentials.ak.startswith("HSTA") and len(credentials.ak) == 20 and len(credentials.sk) == 40
    assert credentials.security_token
    return credentials.ak


def service_client(variables):
    """Exchanges the token with the generated client of STS, which signs with any key, and compares its models."""
    client = (ClientBuilder(StsClient, "GlobalCredentials").with_credentials(GlobalCredentials("ANY", "KEY", "domain"))
              .with_endpoint(variables["HUAWEICLOUD_SDK_STS_ENDPOINT"]).build())
    body = {"provider_urn": variables["HUAWEICLOUD_OIDC_PROVIDER_URN"],
            "agency_urn": variables["HUAWEICLOUD_OIDC_AGENCY_URN"], "agency_session_name": "sdk",
            "id_token": Path(variables["HUAWEICLOUD_OIDC_TOKEN_FILE"]).read_text()}
    exchange = lambda **changes: client.assume_agency_with_oidc(
        AssumeAgencyWithOIDCRequest(body=AssumeAgencyWithOIDCReqBody(**{**body, **changes})))
    response = exchange()
    compare("AssumeAgencyWithOIDC", response, json.loads(response.raw_content), {"source_identity"})
    try:
        exchange(agency_urn="iam::fedcba9876543210fedcba9876543210:agency:unknown")
    except ServiceResponseException as error:
        assert (error.status_code, error.error_code) == (404, "STS5.XXXX")
    else:
        raise AssertionError("an unknown agency was not rejected")


def call_gateway(lab, variables):
    """Lists the certificates through a gateway for each service, with the variables that the SDK reads."""
    sources = {"oidc": ("HUAWEICLOUD_OIDC_", "HUAWEICLOUD_SDK_STS_"), "pod_identity": ("HC_CONTAINER_",),
               "ecs_agency": ("SCM_GATEWAY__UPSTREAM__METADATA_",)}
    common = ("HUAWEICLOUD_SDK_PROJECT_ID", "HUAWEICLOUD_SDK_DOMAIN_ID", "SCM_GATEWAY__UPSTREAM__ENDPOINT")
    for source, prefixes in sources.items():
        chosen = {name: value for name, value in variables.items() if name.startswith((*prefixes, *common))}
        address, admin, _ = lab.gateway(chosen)
        command = [lab.target / "debug/scm-gateway", "call", "ListCertificates", "--address", address]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        status = json.load(urllib.request.urlopen(f"http://{admin}/status"))
        credentials = status["projects"][0]["credentials"]
        assert credentials["source"] == source and credentials["in_use"]["trust"] == "verified", credentials


def main():
    with Lab(sys.argv[1]) as lab:
        services = [part for name in ("--sts", "--pod-identity", "--metadata") for part in (name, "127.0.0.1:0")]
        variables = lab.emulator("--token-folder", str(lab.folder), *services)
        os.environ.update(variables)
        sys.addaudithook(only_loopback)
        # The address is a constant of the SDK.
        MetadataAccessor._METADATA_ENDPOINT = variables["SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT"]
        oidc = OidcStsCredentialProvider.get_basic().get_credentials()
        keys = [call(oidc, variables), call(PodIdentityCredentialProvider.get_basic().get_credentials(), variables),
                call(MetadataCredentialProvider.get_basic().get_credentials(), variables)]
        assert len(set(keys)) == 3 and call(oidc, variables) == keys[0], keys
        service_client(variables)
        call_gateway(lab, variables)
        print(f"the vendor's SDK and the gateway called SCM with temporary credentials of {len(keys)} services")


main()
