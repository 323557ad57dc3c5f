"""Saves the information of one certificate, or prints why the call failed."""

import sys

import grpc
from google.rpc import error_details_pb2 as rpc
from grpc_status import rpc_status
from huaweicloud.scm.v1 import certificate_service_pb2 as scm
from huaweicloud.scm.v1 import certificate_service_pb2_grpc as scm_grpc

request = scm.SaveInfoRequest(
    cert_id=sys.argv[1],
    info=scm.CertificateInfo(
        domain="www.xzz.com", sans=["xzz.com"], country="CN", applicant_name="Tom",
        applicant_phone="13212345678", applicant_email="9997342346@qq.com",
        agree_privacy_protection=True))

with grpc.insecure_channel("127.0.0.1:50051") as channel:
    try:
        print(scm_grpc.CertificateServiceStub(channel).SaveInfo(request, timeout=5).request_info)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")
        status = rpc_status.from_call(error)  # None if there are no details
        for detail in status.details if status else []:
            if detail.Is(rpc.ErrorInfo.DESCRIPTOR):
                info = rpc.ErrorInfo.FromString(detail.value)
                print("ErrorInfo", info.reason, info.metadata.get("upstream_code", ""))
            elif detail.Is(rpc.BadRequest.DESCRIPTOR):
                for violation in rpc.BadRequest.FromString(detail.value).field_violations:
                    print(f"BadRequest {violation.field}: {violation.description}")
            elif detail.Is(rpc.RetryInfo.DESCRIPTOR):
                retry = rpc.RetryInfo.FromString(detail.value)
                print("RetryInfo", retry.retry_delay.ToMilliseconds(), "ms")
