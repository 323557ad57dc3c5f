// A C++ client generated from the proto. It shows every way a call can end, with gRPC's own libraries.
//
// Usage: client ADDRESS TRACEPARENT PAID_CERT_ID [drain]. C++ has no reflection client library.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <future>
#include <iostream>
#include <set>
#include <string>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "huaweicloud/scm/v1/certificate_service.grpc.pb.h"

using namespace huaweicloud::scm::v1;
using namespace std::chrono_literals;

constexpr char kUnknown[] = "nowhere";  // a project that SCM does not know

// Calls `each` with the states of a certificate until the final one. Watches again after UNAVAILABLE, such as after a
// restart.
grpc::Status Watch(CertificateService::Stub& stub, const std::string& cert_id, std::chrono::milliseconds time,
                   const std::function<void(const Certificate&)>& each) {
  const auto deadline = std::chrono::system_clock::now() + time;
  WatchCertificateRequest request;
  request.set_cert_id(cert_id);
  for (;;) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    auto reader = stub.WatchCertificate(&context, request);
    WatchCertificateResponse response;
    while (reader->Read(&response)) each(response.certificate());
    auto status = reader->Finish();
    if (status.error_code() != grpc::UNAVAILABLE) return status;
    std::this_thread::sleep_for(1s);
  }
}

SaveInfoRequest Request(const std::string& cert_id = "scs1481110651012") {
  SaveInfoRequest request;
  request.set_cert_id(cert_id);
  auto* info = request.mutable_info();
  info->set_domain("www.xzz.com");
  info->add_sans("xzz.com");
  info->set_country("CN");
  info->set_applicant_name("Tom");
  info->set_applicant_phone("13212345678");
  info->set_applicant_email("9997342346@qq.com");
  info->set_agree_privacy_protection(true);
  return request;
}

std::string Name(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::OK: return "OK";
    case grpc::CANCELLED: return "CANCELLED";
    case grpc::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case grpc::RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
    case grpc::UNAVAILABLE: return "UNAVAILABLE";
    default: return std::to_string(status.error_code());
  }
}

// Returns the detail of this type, or an empty one.
template <typename T>
T Detail(const grpc::Status& status) {
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  T detail;
  for (const auto& any : rich.details()) {
    if (any.Is<T>()) any.UnpackTo(&detail);
  }
  return detail;
}

int main(int, char** arguments) {
  // A PING every minute notices a connection that is lost.
  grpc::ChannelArguments options;
  options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  options.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  auto channel = grpc::CreateCustomChannel(arguments[1], grpc::InsecureChannelCredentials(), options);
  auto stub = CertificateService::NewStub(channel);
  auto save = [&](const SaveInfoRequest& request, std::chrono::milliseconds time) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + time);
    SaveInfoResponse reply;
    return stub->SaveInfo(&context, request, &reply);
  };
  if (arguments[4]) {
    std::cout << "drain: " << Name(save(Request(), 5s)) << "\n";
    return 0;
  }

  {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", arguments[2]);
    context.set_deadline(std::chrono::system_clock::now() + 5s);
    SaveInfoResponse reply;
    stub->SaveInfo(&context, Request(), &reply);
    std::cout << "SaveInfo: " << reply.request_info() << "\n";
    bool given = context.GetServerInitialMetadata().count("x-upstream-request-id") > 0;
    std::cout << "request id: " << (given ? "given" : "missing") << "\n";
  }
  {
    grpc::ClientContext context;
    ReadInfoRequest request;
    request.set_cert_id("scs1481110651012");
    ReadInfoResponse reply;
    stub->ReadInfo(&context, request, &reply);
    std::cout << "ReadInfo: " << reply.info().domain() << "\n";
  }

  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 5s);
    ApplyCertificateRequest request;
    request.set_cert_id(arguments[3]);
    request.set_domain("www.example.com");
    request.set_applicant_name("Ann Example");
    request.set_applicant_phone("13212345678");
    request.set_applicant_email("ann@example.com");
    request.set_agree_privacy_protection(true);
    request.set_domain_method("DNS");
    ApplyCertificateResponse reply;
    stub->ApplyCertificate(&context, request, &reply);
    std::cout << "ApplyCertificate: " << reply.request_info() << "\n";
    Certificate certificate;
    std::set<std::string> published;
    // 60 s are enough for the emulator: a CA can take days.
    auto status = Watch(*stub, arguments[3], 60s, [&](const Certificate& state) {
      certificate = state;
      for (const auto& proof : state.domain_proofs()) {
        auto record = proof.record_name() + " " + proof.record_type() + " " + proof.record_value();
        if (published.insert(record).second) std::cout << "publish " << record << "\n";
      }
    });
    std::cout << "watch: " << (status.ok() ? certificate.status() : Name(status)) << "\n";
    if (!status.ok() || certificate.status() != "ISSUED") {
      std::cerr << "not issued\n";
      return 1;
    }
  }
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 5s);
    BatchPushCertificateRequest request;
    request.set_cert_id(arguments[3]);
    request.add_target_projects("cn-north-4");
    request.add_target_projects(kUnknown);
    request.set_target_service("WAF");
    BatchPushCertificateResponse reply;
    stub->BatchPushCertificate(&context, request, &reply);
    for (const auto& result : reply.results()) {
      if (result.pushed()) {
        std::cout << "pushed: " << result.project_name() << "\n";
      } else {
        std::cout << "not pushed: " << result.project_name() << ": " << result.message() << "\n";
      }
    }
  }

  {
    std::cout << "watch deadline: " << Name(Watch(*stub, "scs1481110651012", 700ms, [](const Certificate&) {})) << "\n";
    grpc::ClientContext context;
    WatchCertificateRequest request;
    request.set_cert_id("scs1481110651012");
    auto reader = stub->WatchCertificate(&context, request);
    WatchCertificateResponse response;
    reader->Read(&response);
    context.TryCancel();
    std::cout << "watch cancel: " << Name(reader->Finish()) << "\n";
  }

  auto rejected = save(Request("!"), 5s);
  std::cout << "BadRequest:";
  const auto bad = Detail<google::rpc::BadRequest>(rejected);
  for (const auto& violation : bad.field_violations()) std::cout << " " << violation.field();
  const auto info = Detail<google::rpc::ErrorInfo>(rejected);
  std::cout << "\nErrorInfo: " << info.domain() << " " << info.reason() << "\n";

  // This gateway allows one call in flight, and the emulator takes half a second for a reply.
  auto first = std::async(std::launch::async, [&] { return save(Request(), 5s); });
  auto second = save(Request(), 5s);
  auto one = first.get();
  const auto& shed = one.ok() ? second : one;
  std::cout << "overload: " << Name(shed) << " " << Detail<google::rpc::ErrorInfo>(shed).reason() << "\n";
  std::cout << "RetryInfo: " << Detail<google::rpc::RetryInfo>(shed).retry_delay().seconds() << " s\n";

  std::cout << "deadline: " << Name(save(Request(), 200ms)) << "\n";
  {
    grpc::ClientContext context;
    std::thread canceller([&] {
      std::this_thread::sleep_for(100ms);
      context.TryCancel();
    });
    SaveInfoResponse reply;
    std::cout << "cancel: " << Name(stub->SaveInfo(&context, Request(), &reply)) << "\n";
    canceller.join();
  }
  {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service("huaweicloud.scm.v1.CertificateService");
    grpc::health::v1::HealthCheckResponse reply;
    grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &reply);
    std::cout << "health: " << grpc::health::v1::HealthCheckResponse::ServingStatus_Name(reply.status()) << "\n";
  }
}
