//! `scm-gateway call`: a small client, for machines and images without another one.
//!
//! It knows the methods by their compiled descriptors, so a new RPC needs nothing here.

mod address;
mod client;
pub mod codec;
mod failure;
mod json;
mod methods;
mod printable;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Read as _, Write},
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bytesize::MIB;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task,
};

use crate::{
    config::{self, Environment, PemKind, Target},
    grpc::dry_run,
    ops::telemetry::traceparent,
    runtime,
};
use address::Address;
use client::{Call, Server, Tls};
use failure::Failure;

/// The largest request in bytes of JSON.
const MAX_INPUT: u64 = MIB;

/// How much longer than the gateway's own limit a call may take by default, so that the gateway's status arrives.
const EXTRA_TIME: Duration = Duration::from_secs(1);

const EXPECTS_JSON: &str = "-d: expects JSON, or @- to read standard input: -d @- <FILE";

/// The longest deadline. gRPC has 8 digits for it.
const MAX_TIMEOUT: Duration = Duration::from_secs(10_000 * 60 * 60);

/// Metadata that the client sets itself.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The most metadata of the options in bytes. It is hyper's default limit of a server.
const MAX_METADATA: usize = 16 * 1024;

/// The part of `call --help` after the arguments.
const MANUAL: &str = "\
Address:
  Without --address, the call goes to server.listen of the configuration (127.0.0.1:50051). A wildcard address is
  called on loopback.

TLS:
  TLS is used if the configuration has [server.tls], with --tls, --cacert, --cert or --servername, and for each host
  of --address but localhost and loopback addresses. Otherwise, and with --plaintext, the call is sent in plain text.

Request and reply:
  JSON as protobuf maps it. A request may have the names of the proto (cert_id) or of JSON (certId), and at most 1 MiB.
  A reply has the names of JSON, and no empty fields. A stream prints one document for each response, until it ends.
  Other users of this machine can read the arguments of a process, and those of kubectl exec are in the audit log of
  Kubernetes: pass private keys and personal data with -d @-. A reply is printed as it is, also one with a private key.

Deadline:
  Without --timeout, upstream.timeout plus 1s (11s). A stream has no deadline then.

Exit codes:
  0         OK
  1         the reply cannot be written to standard output; the call was made
  78        the command line, the configuration or the request is wrong; nothing was sent
  79        the gateway does not know --dry-run, and has made the call
  81 to 96  80 plus the number of the gRPC status, such as 83 for INVALID_ARGUMENT and 94 for UNAVAILABLE;
            does not tell whether the gateway knows --dry-run
  130, 143  ended by SIGINT or SIGTERM

Examples:
  scm-gateway call --list
  scm-gateway call SaveInfo --describe >request.json
  scm-gateway call SaveInfo -d @- <request.json
  scm-gateway call ReadInfo -d '{\"cert_id\": \"scs1481110651012\"}' --trace
  scm-gateway call WatchCertificate -d '{\"cert_id\": \"scs1481110651012\"}' --timeout 1h
  scm-gateway call ListCertificates --address scm.example.org:50051 --cacert ca.crt --cert client.crt --key client.key
  scm-gateway call ListCertificates --address unix:/run/scm-gateway.sock
  kubectl exec -i deploy/scm-gateway -- /usr/local/bin/scm-gateway call \\
    --config /etc/scm-gateway/scm-gateway.toml SaveInfo -d @- <request.json";

/// Call a method of a running gateway, and print its reply as JSON
///
/// A failed call prints its status with all details on standard error.
#[derive(clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Arguments {
    /// The method, such as SaveInfo, CertificateService/SaveInfo, or its full name
    #[arg(value_name = "METHOD", required_unless_present = "list")]
    method: Option<String>,
    /// The request in JSON, or @- to read it from standard input; {} by default
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    data: Option<String>,
    /// The address of the gateway: HOST:PORT or unix:PATH
    #[arg(long)]
    address: Option<String>,
    /// Use TLS
    #[arg(long)]
    tls: bool,
    /// Use no TLS: everyone on the network can read and change the call
    #[arg(long, conflicts_with_all = ["tls", "cacert", "cert", "key", "servername"])]
    plaintext: bool,
    /// The CA certificates that the gateway's certificate is verified with; the system's by default
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The client certificate with its chain
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name in the gateway's certificate; the host of the address by default
    #[arg(long, value_name = "NAME")]
    servername: Option<String>,
    /// The deadline of the call, such as 5s; at most 10000h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Further metadata; can be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Validate and authorize the call, and send nothing to SCM
    #[arg(long)]
    dry_run: bool,
    /// Start a sampled trace, and print its id on standard error
    #[arg(long)]
    trace: bool,
    /// List all methods
    #[arg(
        long,
        conflicts_with_all = [
            "method", "data", "address", "tls", "plaintext", "cacert", "cert", "key", "servername", "timeout", "headers",
            "dry_run", "trace", "describe",
        ]
    )]
    list: bool,
    /// Print the request of the method with empty values
    #[arg(long, conflicts_with_all = ["data", "address"])]
    describe: bool,
}

/// Calls a method, and prints the reply or the failure.
pub fn run(arguments: &Arguments, file: Option<&Path>, environment: &Environment) -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        drop(writeln!(io::stderr(), "scm-gateway: panic at {location}")); // the message may hold values of the request
    }));
    match execute(arguments, file, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut stderr = io::stderr().lock();
            failure.lines().iter().for_each(|line| drop(writeln!(stderr, "{line}")));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(arguments: &Arguments, file: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let Some(name) = &arguments.method else {
        return methods::names().iter().try_for_each(|name| print(name));
    };
    let method = methods::find(name).map_err(|problem| Failure::Usage(format!("METHOD: {problem}")))?;
    if arguments.describe {
        return print(&json::template(&method.input()));
    }
    let target = config::target(file, environment).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let (server, call) = prepare(arguments, method, target).map_err(Failure::Usage)?;
    let runtime = runtime::runtime().map_err(|error| Failure::Usage(format!("no runtime: {error}")))?;
    let result = runtime.block_on(async {
        let [mut interrupt, mut terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(listen);
        tokio::select! {
            biased;
            _ = interrupt.recv() => Err(Failure::Signal(SignalKind::interrupt())),
            _ = terminate.recv() => Err(Failure::Signal(SignalKind::terminate())),
            result = client::call(&server, call, print_reply) => result,
        }
    });
    runtime.shutdown_background(); // a name lookup or a blocked output may still hold a thread
    result
}

fn listen(kind: SignalKind) -> Signal {
    signal(kind).expect("the runtime has its signal driver")
}

/// Prints a reply. A blocked output does not block signals and the deadline.
async fn print_reply(reply: DynamicMessage) -> Result<(), Failure> {
    let printed = task::spawn_blocking(move || print(&json::reply(&reply))).await;
    printed.expect("no panic while printing")
}

/// Prints a document on standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Returns the call that the arguments describe, or the option that is wrong and why.
fn prepare(arguments: &Arguments, method: MethodDescriptor, target: Target) -> Result<(Server, Call), String> {
    let server = server(arguments, &target)?;
    let input = match arguments.data.as_deref() {
        None => "{}".to_owned(),
        Some("@-") => standard_input()?,
        Some(text) if text.starts_with('@') => return Err(EXPECTS_JSON.to_owned()),
        Some(text) => text.to_owned(),
    };
    let request = json::request(&method.input(), &input).map_err(|problem| format!("-d: {problem}"))?;
    let headers = headers(arguments)?;
    let default = (!method.is_server_streaming()).then(|| target.timeout + EXTRA_TIME);
    Ok((server, Call { method, request, headers, timeout: arguments.timeout.or(default) }))
}

fn standard_input() -> Result<String, String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text);
    match read {
        Err(error) => Err(format!("-d: standard input cannot be read: {error}")),
        Ok(_) if text.len() as u64 > MAX_INPUT => Err("-d: standard input has more than 1 MiB".to_owned()),
        Ok(_) => Ok(text),
    }
}

fn server(arguments: &Arguments, target: &Target) -> Result<Server, String> {
    let address = match &arguments.address {
        Some(address) => Address::parse(address).map_err(|problem| format!("--address: {problem}"))?,
        None => Address::of(&target.listen),
    };
    let pem = |option: &str, path: &Option<PathBuf>, kind| {
        let Some(path) = path else { return Ok(None) };
        if path.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(format!("{option}: expects the path of a file, not its content"));
        }
        config::pem(path, kind).map(Some).map_err(|problem| format!("{option}: {problem}"))
    };
    let ca = pem("--cacert", &arguments.cacert, PemKind::Certificates)?;
    let certificate = pem("--cert", &arguments.cert, PemKind::Certificates)?;
    let key = pem("--key", &arguments.key, PemKind::PrivateKey)?;
    let is_requested = arguments.tls || ca.is_some() || certificate.is_some() || arguments.servername.is_some();
    // Without --address, the configuration is that of the listener, and decides.
    let is_remote = arguments.address.is_some() && !address.is_local();
    let is_tls = !arguments.plaintext && (is_requested || target.tls || is_remote);
    let tls = Tls { ca, identity: certificate.zip(key), server_name: arguments.servername.clone() };
    Ok(Server { address, tls: is_tls.then_some(tls) })
}

/// Returns the metadata of the call. Prints the id of its trace, if it has one.
fn headers(arguments: &Arguments) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in &arguments.headers {
        let (name, value) = header.split_once(':').ok_or("-H: expects NAME: VALUE")?;
        let name: HeaderName = name.trim().parse().map_err(|_| "-H: expects a metadata key before the colon")?;
        if name.as_str().starts_with("grpc-") || RESERVED.contains(&name.as_str()) {
            return Err(format!("-H: {name} cannot be set"));
        }
        let value = value.trim().parse().ok().filter(|value: &HeaderValue| value.to_str().is_ok());
        let value = value.ok_or_else(|| format!("-H: {name}: expects printable ASCII after the colon"))?;
        headers.append(name, value);
    }
    if headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > MAX_METADATA {
        return Err("-H: has more than 16 KiB".to_owned());
    }
    if arguments.dry_run {
        headers.insert(dry_run::KEY, HeaderValue::from_static("true"));
    }
    if arguments.trace {
        let context = traceparent::sampled();
        headers.insert(&traceparent::TRACEPARENT, traceparent::header(&context).expect("a random id is valid"));
        drop(writeln!(io::stderr(), "trace id: {}", traceparent::trace_id(&context)));
    }
    Ok(headers)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero() && *duration <= MAX_TIMEOUT);
    duration.ok_or_else(|| "expects a duration such as 5s, up to 10000h".to_owned())
}
