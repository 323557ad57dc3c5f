// Saves the information of one certificate, or prints why the call failed.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const google = require("google-proto-files").getProtoPath("..");

const options = { keepCase: true, defaults: true, longs: Number, includeDirs: [process.env.PROTO, google] };
const { scm } = grpc.loadPackageDefinition(
  loader.loadSync("huaweicloud/scm/v1/certificate_service.proto", options)).huaweicloud;
const rpc = loader.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"], options);

// grpc-js leaves the details of a failed call as bytes in the metadata.
function details(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!bytes) return [];
  return rpc["google.rpc.Status"].deserialize(bytes).details.map(({ type_url, value }) => {
    const type = type_url.split("/").pop();
    return { type, ...rpc[type].deserialize(value) };
  });
}

const client = new scm.v1.CertificateService("127.0.0.1:50051", grpc.credentials.createInsecure());
const request = {
  cert_id: process.argv[2],
  info: {
    domain: "www.xzz.com", sans: ["xzz.com"], country: "CN", applicant_name: "Tom",
    applicant_phone: "13212345678", applicant_email: "9997342346@qq.com", agree_privacy_protection: true,
  },
};
client.SaveInfo(request, { deadline: Date.now() + 5000 }, (error, reply) => {
  if (!error) return console.log(reply.request_info);
  console.log(`${grpc.status[error.code]}: ${error.details}`);
  for (const detail of details(error)) {
    if (detail.type === "google.rpc.ErrorInfo") {
      console.log("ErrorInfo", detail.reason, detail.metadata.upstream_code ?? "");
    } else if (detail.type === "google.rpc.BadRequest") {
      for (const { field, description } of detail.field_violations) console.log(`BadRequest ${field}: ${description}`);
    } else if (detail.type === "google.rpc.RetryInfo") {
      const { seconds, nanos } = detail.retry_delay;
      console.log("RetryInfo", seconds * 1000 + nanos / 1e6, "ms");
    }
  }
});
