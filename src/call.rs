//! `scm-gateway call`: a small client, for machines and images without another one.
//!
//! It knows the methods by their compiled descriptors, so a new RPC needs nothing here.

mod client;
mod failure;
mod json;
mod methods;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Read as _, Write},
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
    ops::telemetry::traceparent,
    runtime,
};
use client::{Address, Call, Server, Tls};
use failure::Failure;

/// The largest request in bytes of JSON.
const MAX_INPUT: u64 = MIB;

/// How much longer than the gateway's own limit a call may take by default, so that the gateway's status arrives.
const EXTRA_TIME: Duration = Duration::from_secs(1);

/// Metadata that the client sets itself.
const RESERVED: [&str; 4] = ["content-type", "host", "te", "user-agent"];

/// The metadata that makes a call a dry run.
const DRY_RUN: &str = "x-scm-gateway-dry-run";

/// The part of `call --help` after the arguments.
const MANUAL: &str = "\
Address:
  Without --address, the call goes to server.listen of the configuration (127.0.0.1:50051), with TLS if [server.tls]
  is set. A wildcard address is called on loopback. With --address, only the options decide about TLS.
  --cacert, --cert and --servername imply --tls.

Request and reply:
  JSON as protobuf maps it. A request may have the names of the proto (cert_id) or of JSON (certId), and at most 1 MiB.
  A reply has the names of JSON, and no empty fields. A stream prints one document for each response, until it ends.
  Other users of this machine can read the arguments of a process: pass private keys with -d @-. A reply is printed
  as it is, also one with a private key.

Deadline:
  Without --timeout, upstream.timeout plus 1s (11s). A stream has no deadline then.

Exit codes:
  0         OK
  1         standard output is closed
  78        the command line, the configuration or the request is wrong; nothing was sent
  81 to 96  80 plus the number of the gRPC status, such as 83 for INVALID_ARGUMENT and 94 for UNAVAILABLE
  130, 143  ended by SIGINT or SIGTERM

Examples:
  scm-gateway call --list
  scm-gateway call SaveInfo --describe >request.json
  scm-gateway call SaveInfo -d @- <request.json
  scm-gateway call ReadInfo -d '{\"cert_id\": \"scs1481110651012\"}' --trace
  scm-gateway call WatchCertificate -d '{\"cert_id\": \"scs1481110651012\"}' --timeout 1h
  scm-gateway call ListCertificates --address localhost:50051 --cacert ca.crt --cert client.crt --key client.key
  scm-gateway call ListCertificates --address unix:/run/scm-gateway.sock";

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
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// The address of the gateway: HOST:PORT or unix:PATH
    #[arg(long)]
    address: Option<String>,
    /// Use TLS
    #[arg(long)]
    tls: bool,
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
    /// The deadline of the call, such as 5s
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
    #[arg(long, exclusive = true)]
    list: bool,
    /// Print the request of the method with empty values
    #[arg(long, conflicts_with_all = ["data", "address"])]
    describe: bool,
}

/// Calls a method, and prints the reply or the failure.
pub fn run(arguments: &Arguments, file: Option<&Path>, environment: &Environment) -> ExitCode {
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
        Some(text) if text.starts_with('@') => return Err("-d: expects JSON, or @- for standard input".to_owned()),
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
        let pem = path.as_ref().map(|path| config::pem(path, kind)).transpose();
        pem.map_err(|problem| format!("{option}: {problem}"))
    };
    let ca = pem("--cacert", &arguments.cacert, PemKind::Certificates)?;
    let certificate = pem("--cert", &arguments.cert, PemKind::Certificates)?;
    let key = pem("--key", &arguments.key, PemKind::PrivateKey)?;
    let is_configured = arguments.address.is_none() && target.tls;
    let is_implied = ca.is_some() || certificate.is_some() || arguments.servername.is_some();
    let tls = Tls { ca, identity: certificate.zip(key), server_name: arguments.servername.clone() };
    Ok(Server { address, tls: (arguments.tls || is_configured || is_implied).then_some(tls) })
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
        let value: HeaderValue =
            value.trim().parse().map_err(|_| format!("-H: {name}: expects printable ASCII after the colon"))?;
        headers.append(name, value);
    }
    if arguments.dry_run {
        headers.insert(DRY_RUN, HeaderValue::from_static("true"));
    }
    if arguments.trace {
        let context = traceparent::sampled();
        headers.insert(traceparent::TRACEPARENT, traceparent::header(&context).expect("a random id is valid"));
        drop(writeln!(io::stderr(), "trace id: {}", traceparent::trace_id(&context)));
    }
    Ok(headers)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "expects a duration such as 5s".to_owned())
}
