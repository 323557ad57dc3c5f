"""Saves the information of a certificate over TLS with client.crt and client.key, or prints the status code."""

from pathlib import Path

import grpc
from huaweicloud.scm.v1 import certificate_service_pb2 as scm
from huaweicloud.scm.v1 import certificate_service_pb2_grpc as scm_grpc

request = scm.SaveInfoRequest(
    cert_id="scs1481110651012",
    info=scm.CertificateInfo(
        domain="www.xzz.com", country="CN", applicant_name="Tom", applicant_phone="13212345678",
        applicant_email="9997342346@qq.com", agree_privacy_protection=True))

# docs: tls
ca, key, certificate = (Path(file).read_bytes() for file in ("ca.crt", "client.key", "client.crt"))
credentials = grpc.ssl_channel_credentials(ca, key, certificate)
with grpc.secure_channel("localhost:50051", credentials) as channel:
    # docs: end
    # docs: call
    try:
        reply = scm_grpc.CertificateServiceStub(channel).SaveInfo(request, timeout=5)
        print(reply.request_info)
    except grpc.RpcError as error:
        print(error.code().name)
    # docs: end
