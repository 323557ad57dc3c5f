# A Ruby client generated from the proto. It shows every way a call can end, with gRPC's own libraries.
#
# Usage: ruby -I GENERATED client.rb ADDRESS TRACEPARENT PAID_CERT_ID [drain]. Ruby's gRPC has no reflection client.
require "set"
require "grpc"
require "google/protobuf/well_known_types"
require "google/rpc/error_details_pb"
require "grpc/health/v1/health_services_pb"
require "huaweicloud/scm/v1/certificate_service_services_pb"

include Huaweicloud::Scm::V1

address, traceparent, paid, drain = ARGV
UNKNOWN = "nowhere" # a project that SCM does not know
CODES = GRPC::Core::StatusCodes.constants.to_h { |name| [GRPC::Core::StatusCodes.const_get(name), name.to_s] }
DETAILS = [Google::Rpc::ErrorInfo, Google::Rpc::BadRequest, Google::Rpc::RetryInfo]

def request(cert_id = "scs1481110651012")
  SaveInfoRequest.new(cert_id: cert_id, info: CertificateInfo.new(
    domain: "www.xzz.com", sans: ["xzz.com"], country: "CN", applicant_name: "Tom",
    applicant_phone: "13212345678", applicant_email: "9997342346@qq.com", agree_privacy_protection: true))
end

# Returns the status code of a failed call and its details by type.
def failure
  yield
  abort "the call did not fail"
rescue GRPC::BadStatus => error
  status = error.to_rpc_status
  details = (status ? status.details.to_a : []).flat_map do |any|
    DETAILS.select { |kind| any.is(kind) }.map { |kind| [kind, any.unpack(kind)] }
  end
  [CODES[error.code], details.to_h]
end

# Yields the states of a certificate until the final one. Watches again after UNAVAILABLE, such as after a restart.
def watch(stub, cert_id, deadline)
  request = WatchCertificateRequest.new(cert_id: cert_id)
  stub.watch_certificate(request, deadline: deadline).each { |response| yield response.certificate }
rescue GRPC::Unavailable
  sleep 1
  retry
end

deadline_in = ->(seconds = 5) { Time.now + seconds }
# A PING every minute notices a connection that is lost.
OPTIONS = { "grpc.keepalive_time_ms" => 60_000, "grpc.http2.max_pings_without_data" => 0 }
stub = CertificateService::Stub.new(address, :this_channel_is_insecure, channel_args: OPTIONS)
if drain
  puts "drain: #{failure { stub.save_info(request, deadline: deadline_in.call) }[0]}"
  exit
end

call = stub.save_info(request, deadline: deadline_in.call, metadata: { "traceparent" => traceparent }, return_op: true)
puts "SaveInfo: #{call.execute.request_info}"
puts "request id: #{call.metadata["x-upstream-request-id"] ? "given" : "missing"}"
puts "ReadInfo: #{stub.read_info(ReadInfoRequest.new(cert_id: "scs1481110651012"), deadline: deadline_in.call).info.domain}"

application = ApplyCertificateRequest.new(
  cert_id: paid, domain: "www.example.com", applicant_name: "Ann Example", applicant_phone: "13212345678",
  applicant_email: "ann@example.com", agree_privacy_protection: true, domain_method: "DNS")
puts "ApplyCertificate: #{stub.apply_certificate(application, deadline: deadline_in.call).request_info}"

certificate, published = nil, Set.new
watch(stub, paid, deadline_in.call(60)) do |state| # 60 s are enough for the emulator: a CA can take days
  certificate = state
  state.domain_proofs.each do |proof|
    record = "#{proof.record_name} #{proof.record_type} #{proof.record_value}"
    puts "publish #{record}" if published.add?(record)
  end
end
puts "watch: #{certificate.status}"
abort "not issued" unless certificate.status == "ISSUED"

push = BatchPushCertificateRequest.new(cert_id: paid, target_projects: ["cn-north-4", UNKNOWN], target_service: "WAF")
stub.batch_push_certificate(push, deadline: deadline_in.call).results.each do |result|
  puts result.pushed ? "pushed: #{result.project_name}" : "not pushed: #{result.project_name}: #{result.message}"
end

puts "watch deadline: #{failure { watch(stub, "scs1481110651012", deadline_in.call(0.7)) {} }[0]}"
watched = stub.watch_certificate(WatchCertificateRequest.new(cert_id: "scs1481110651012"), deadline: deadline_in.call, return_op: true)
puts "watch cancel: #{failure { watched.execute.each { watched.cancel } }[0]}"

_, details = failure { stub.save_info(request("!"), deadline: deadline_in.call) }
puts "BadRequest: #{details[Google::Rpc::BadRequest].field_violations.map(&:field).join(" ")}"
puts "ErrorInfo: #{details[Google::Rpc::ErrorInfo].domain} #{details[Google::Rpc::ErrorInfo].reason}"

# This gateway allows one call in flight, and the emulator takes half a second for a reply.
calls = 2.times.map { Thread.new { failure { stub.save_info(request, deadline: deadline_in.call); raise GRPC::Ok } } }
code, details = calls.map(&:value).find { |name, _| name == "RESOURCE_EXHAUSTED" }
puts "overload: #{code} #{details[Google::Rpc::ErrorInfo].reason}"
puts "RetryInfo: #{details[Google::Rpc::RetryInfo].retry_delay.seconds} s"

puts "deadline: #{failure { stub.save_info(request, deadline: deadline_in.call(0.2)) }[0]}"
cancelled = stub.save_info(request, deadline: deadline_in.call, return_op: true)
Thread.new { sleep 0.1; cancelled.cancel }
puts "cancel: #{failure { cancelled.execute }[0]}"

health = Grpc::Health::V1::Health::Stub.new(address, :this_channel_is_insecure)
answer = health.check(Grpc::Health::V1::HealthCheckRequest.new(service: "huaweicloud.scm.v1.CertificateService"))
puts "health: #{answer.status}"
