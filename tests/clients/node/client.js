// A Node client generated from the proto. It shows every way a call can end, with gRPC's own libraries.
//
// Usage: client.js ADDRESS TRACEPARENT PAID_CERT_ID [drain]; PROTO is the proto directory. grpc-js has no reflection client.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const google = require("google-proto-files").getProtoPath("..");

const [address, traceparent, paid, drain] = process.argv.slice(2);
const unknown = "nowhere"; // a project that SCM does not know
const options = { keepCase: true, longs: Number, enums: String, defaults: true, includeDirs: [process.env.PROTO, google] };
const { scm } = grpc.loadPackageDefinition(
  loader.loadSync("huaweicloud/scm/v1/certificate_service.proto", options)).huaweicloud;
const rpc = loader.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"], options);
const { grpc: own } = grpc.loadPackageDefinition(loader.loadSync(require.resolve("grpc-health-check/proto/health/v1/health.proto"), options));

// Returns the details of a failed call by type: { ErrorInfo: { reason: "…", … }, … }
function details(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!bytes) return {};
  return Object.fromEntries(rpc["google.rpc.Status"].deserialize(bytes).details.map(({ type_url, value }) => {
    const type = type_url.split("/").pop();
    return [type.split(".").pop(), rpc[type].deserialize(value)];
  }));
}

const request = (cert_id = "scs1481110651012") => ({
  cert_id,
  info: {
    domain: "www.xzz.com", sans: ["xzz.com"], country: "CN", applicant_name: "Tom",
    applicant_phone: "13212345678", applicant_email: "9997342346@qq.com", agree_privacy_protection: true,
  },
});

// docs: channel
// A PING every minute notices a connection that is lost.
const channelOptions = { "grpc.keepalive_time_ms": 60_000 };
const client = new scm.v1.CertificateService(address, grpc.credentials.createInsecure(), channelOptions);
// docs: end

// Starts a call. Returns its handle and a promise of { reply } or { error }, with the initial metadata.
function start(method, message, { seconds = 5, metadata = new grpc.Metadata() } = {}) {
  let call;
  const end = new Promise((done) => {
    let initial = new grpc.Metadata();
    call = client[method](message, metadata, { deadline: Date.now() + seconds * 1000 },
      (error, reply) => done({ error, reply, initial }));
    call.on("metadata", (received) => { initial = received; });
  });
  return { call, end };
}
const code = ({ error }) => grpc.status[error.code];

// docs: watch
// Yields the states of a certificate until the final one. Watches again after UNAVAILABLE, such as after a restart.
async function* watch(cert_id, seconds) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    try {
      for await (const { certificate } of client.WatchCertificate({ cert_id }, { deadline })) yield certificate;
      return;
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}
// docs: end

async function main() {
  if (drain) return console.log("drain:", code(await start("SaveInfo", request()).end));

  const metadata = new grpc.Metadata();
  metadata.set("traceparent", traceparent);
  const saved = await start("SaveInfo", request(), { metadata }).end;
  console.log("SaveInfo:", saved.reply.request_info);
  console.log("request id:", saved.initial.get("x-upstream-request-id").length ? "given" : "missing");
  console.log("ReadInfo:", (await start("ReadInfo", { cert_id: "scs1481110651012" }).end).reply.info.domain);

  // docs: apply
  const application = {
    cert_id: paid, domain: "www.example.com", applicant_name: "Ann Example", applicant_phone: "13212345678",
    applicant_email: "ann@example.com", agree_privacy_protection: true, domain_method: "DNS",
  };
  const applied = await start("ApplyCertificate", application).end;
  console.log("ApplyCertificate:", applied.reply.request_info);

  let certificate;
  const published = new Set();
  for await (certificate of watch(paid, 60)) { // 60 s are enough for the emulator: a CA can take days
    for (const { record_name, record_type, record_value } of certificate.domain_proofs) {
      const record = `${record_name} ${record_type} ${record_value}`;
      if (!published.has(record)) console.log("publish", record);
      published.add(record);
    }
  }
  console.log("watch:", certificate.status);
  if (certificate.status !== "ISSUED") throw new Error("not issued");
  // docs: end

  // docs: push
  const push = { cert_id: paid, target_projects: ["cn-north-4", unknown], target_service: "WAF" };
  for (const result of (await start("BatchPushCertificate", push).end).reply.results) {
    if (result.pushed) console.log(`pushed: ${result.project_name}`);
    else console.log(`not pushed: ${result.project_name}: ${result.message}`);
  }
  // docs: end

  const draft = { cert_id: "scs1481110651012" };
  const ended = (call) => new Promise((done) => call.on("data", () => {}).on("error", (error) => done({ error })));
  console.log("watch deadline:", code(await ended(client.WatchCertificate(draft, { deadline: Date.now() + 700 }))));
  const watched = client.WatchCertificate(draft, { deadline: Date.now() + 5000 });
  watched.once("data", () => watched.cancel());
  console.log("watch cancel:", code(await ended(watched)));

  const rejected = details((await start("SaveInfo", request("!")).end).error);
  console.log("BadRequest:", ...rejected.BadRequest.field_violations.map((violation) => violation.field));
  console.log("ErrorInfo:", rejected.ErrorInfo.domain, rejected.ErrorInfo.reason);

  // This gateway allows one call in flight, and the emulator takes half a second for a reply.
  const first = start("SaveInfo", request());
  const second = start("SaveInfo", request());
  const ends = await Promise.all([first.end, second.end]);
  const shed = ends.find(({ error }) => error);
  console.log("overload:", code(shed), details(shed.error).ErrorInfo.reason);
  console.log("RetryInfo:", details(shed.error).RetryInfo.retry_delay.seconds, "s");

  console.log("deadline:", code(await start("SaveInfo", request(), { seconds: 0.2 }).end));
  const cancelled = start("SaveInfo", request());
  cancelled.call.cancel();
  console.log("cancel:", code(await cancelled.end));

  const health = new own.health.v1.Health(address, grpc.credentials.createInsecure());
  const service = "huaweicloud.scm.v1.CertificateService";
  const { status } = await new Promise((done, fail) =>
    health.Check({ service }, (error, reply) => (error ? fail(error) : done(reply))));
  console.log("health:", status);
}

main().then(() => process.exit(0));
