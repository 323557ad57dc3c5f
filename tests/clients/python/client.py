"""A Python client generated from the proto. It shows every way a call can end, with gRPC's own libraries.

Usage: client.py ADDRESS TRACEPARENT PAID_CERT_ID [drain]. PYTHONPATH has the generated code.
"""

import sys
import time

import grpc
from google.rpc import error_details_pb2 as rpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from huaweicloud.scm.v1 import certificate_service_pb2 as scm
from huaweicloud.scm.v1 import certificate_service_pb2_grpc as scm_grpc

ADDRESS, TRACEPARENT, PAID, *DRAIN = sys.argv[1:]
UNKNOWN = "nowhere"  # a project that SCM does not know


def request(cert_id="scs1481110651012"):
    return scm.SaveInfoRequest(
        cert_id=cert_id,
        info=scm.CertificateInfo(
            domain="www.xzz.com", sans=["xzz.com"], country="CN", applicant_name="Tom",
            applicant_phone="13212345678", applicant_email="9997342346@qq.com", agree_privacy_protection=True))


def failure(call):
    """Returns the status code of a failed call and its details by type."""
    try:
        call()
    except grpc.RpcError as error:
        details = {}
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            for kind in (rpc.ErrorInfo, rpc.BadRequest, rpc.RetryInfo):
                if detail.Is(kind.DESCRIPTOR):
                    details[kind.__name__] = kind()
                    detail.Unpack(details[kind.__name__])
        return error.code().name, details
    raise SystemExit("the call did not fail")


# docs: watch
def watch(stub, cert_id, seconds):
    """Yields the states of a certificate until the final one. Watches again after UNAVAILABLE, such as after a restart."""
    request, end = scm.WatchCertificateRequest(cert_id=cert_id), time.monotonic() + seconds
    while True:
        try:
            for response in stub.WatchCertificate(request, timeout=end - time.monotonic()):
                yield response.certificate
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(1)
# docs: end


# docs: channel
# A PING every minute notices a connection that is lost.
OPTIONS = [("grpc.keepalive_time_ms", 60_000), ("grpc.http2.max_pings_without_data", 0)]
with grpc.insecure_channel(ADDRESS, OPTIONS) as channel:
    stub = scm_grpc.CertificateServiceStub(channel)
    # docs: end
    if DRAIN:
        print("drain:", failure(lambda: stub.SaveInfo(request(), timeout=5))[0])
        raise SystemExit

    reply, call = stub.SaveInfo.with_call(request(), timeout=5, metadata=[("traceparent", TRACEPARENT)])
    print("SaveInfo:", reply.request_info)
    metadata = {entry.key: entry.value for entry in call.initial_metadata()}
    print("request id:", "given" if metadata.get("x-upstream-request-id") else "missing")
    print("ReadInfo:", stub.ReadInfo(scm.ReadInfoRequest(cert_id="scs1481110651012"), timeout=5).info.domain)

    # docs: apply
    application = scm.ApplyCertificateRequest(
        cert_id=PAID, domain="www.example.com", applicant_name="Ann Example", applicant_phone="13212345678",
        applicant_email="ann@example.com", agree_privacy_protection=True, domain_method="DNS")
    print("ApplyCertificate:", stub.ApplyCertificate(application, timeout=5).request_info)

    published = set()
    for certificate in watch(stub, PAID, 60):  # 60 s are enough for the emulator: a CA can take days
        for proof in certificate.domain_proofs:
            record = f"{proof.record_name} {proof.record_type} {proof.record_value}"
            if record not in published:
                print("publish", record)
                published.add(record)
    print("watch:", certificate.status)
    if certificate.status != "ISSUED":
        sys.exit("not issued")
    # docs: end

    # docs: push
    push = scm.BatchPushCertificateRequest(
        cert_id=PAID, target_projects=["cn-north-4", UNKNOWN], target_service="WAF")
    for result in stub.BatchPushCertificate(push, timeout=5).results:
        if result.pushed:
            print(f"pushed: {result.project_name}")
        else:
            print(f"not pushed: {result.project_name}: {result.message}")
    # docs: end

    draft = scm.WatchCertificateRequest(cert_id="scs1481110651012")
    print("watch deadline:", failure(lambda: list(stub.WatchCertificate(draft, timeout=0.7)))[0])
    watched = stub.WatchCertificate(draft, timeout=5)
    next(watched)
    watched.cancel()
    print("watch cancel:", watched.code().name)

    _, details = failure(lambda: stub.SaveInfo(request(cert_id="!"), timeout=5))
    print("BadRequest:", *[violation.field for violation in details["BadRequest"].field_violations])
    print("ErrorInfo:", details["ErrorInfo"].domain, details["ErrorInfo"].reason)

    first = stub.SaveInfo.future(request(), timeout=5)
    # This gateway allows one call in flight, and the emulator takes half a second for a reply.
    code, details = "", {}
    while code != "RESOURCE_EXHAUSTED":
        code, details = failure(lambda: stub.SaveInfo(request(), timeout=5))
    print("overload:", code, details["ErrorInfo"].reason)
    print("RetryInfo:", details["RetryInfo"].retry_delay.seconds, "s")
    first.result()

    print("deadline:", failure(lambda: stub.SaveInfo(request(), timeout=0.2))[0])
    cancelled = stub.SaveInfo.future(request(), timeout=5)
    cancelled.cancel()
    print("cancel:", cancelled.code().name)

    health = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service="huaweicloud.scm.v1.CertificateService"))
    print("health:", health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    print("reflection:", *[name for name in services if name.startswith("huaweicloud")])
