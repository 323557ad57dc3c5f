//! Runs the emulator for manual use: `cargo run -p scm-emulator --example scm-emulator`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use scm_emulator::{
    Account, Emulator, Options, Processed, Product, Reply, SAMPLE_DOMAIN, SAMPLE_PROJECT, Seed, Status, Step, Tls,
};

const HELP: &str = "\
Emulates the SCM endpoint: verifies signatures, checks requests, and keeps certificates and CSRs in memory.

Usage: scm-emulator [--listen ADDR] [--tls FILE] [--key AK:SK] [--delay MS] [--review MS]
                    [--certificate ID=STATE]… [--csr ID]…

  --listen ADDR           address and port to listen on [default: 127.0.0.1:18080]
  --tls FILE              use TLS, as localhost and 127.0.0.1, and write the authority's certificate to FILE
  --key AK:SK             accept these credentials instead of the invented ones
  --delay MS              delay before each response, in milliseconds [default: 0]
  --review MS             how long each step of the CA takes, in milliseconds [default: 5000]
  --certificate ID=STATE  begin with a certificate in a state, such as ISSUED or CHECKING_DOMAIN
  --csr ID                begin with a CSR for www.example.com; the id has 32 characters
  --help                  show this text

There are four certificates to begin with:
  scs1000000000001   PAID, DV, one domain
  scs1000000000002   PAID, OV, ten domains
  scs1000000000003   ISSUED, DV, ten domains
  scs1000000000004   UPLOAD: imported

Every other certificate id of scs and 13 digits exists, too: PAID, DV, ten domains. Some always fail:
  scs0000000000403   belongs to another tenant
  scs0000000000404   does not exist
  scs0000000000412   is already issued: a save is rejected
  scs0000000000429   is throttled: retry after a second
  scs0000000000504   never gets a response: DEADLINE_EXCEEDED

An application moves from CHECKING_DOMAIN, with OV and EV over CHECKING_ORG, to ISSUING and ISSUED, a step at a time. The
CA refuses domains below .invalid: UNPASSED. Revocations, withdrawals and additional domains take one step. A push to the
project nowhere fails, and a deployment to the resource nowhere.";

struct Arguments {
    listen: SocketAddr,
    authority: Option<PathBuf>,
    account: Account,
    service_time: Duration,
    review_step: Duration,
    certificates: Vec<Seed>,
    csrs: Vec<String>,
}

/// Parses the arguments. Returns `None` for `--help`.
fn arguments(mut args: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut listen = "127.0.0.1:18080".to_owned();
    let mut authority = None;
    let mut account = Account::sample();
    let mut service_time = Duration::ZERO;
    let mut review_step = Options::default().review_step;
    let mut certificates = Vec::new();
    let mut csrs = Vec::new();
    while let Some(argument) = args.next() {
        let mut value = || args.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--listen" => listen = value()?,
            "--tls" => authority = Some(value()?.into()),
            "--key" => {
                let key = value()?;
                let (access_key, secret_key) = key.split_once(':').ok_or("--key expects AK:SK")?;
                account.access_key = access_key.to_owned();
                account.secret_key = secret_key.to_owned();
            }
            "--delay" => service_time = milliseconds(&argument, &value()?)?,
            "--review" => review_step = milliseconds(&argument, &value()?)?,
            "--certificate" => certificates.push(certificate(&value()?)?),
            "--csr" => csrs.push(Some(value()?).filter(|id| id.len() == 32).ok_or("--csr expects 32 characters")?),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    let listen = listen.parse().map_err(|_| format!("--listen expects an address with a port, not {listen}"))?;
    Ok(Some(Arguments { listen, authority, account, service_time, review_step, certificates, csrs }))
}

fn milliseconds(argument: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse().map_err(|_| format!("{argument} expects milliseconds"))?;
    Ok(Duration::from_millis(number))
}

fn certificate(value: &str) -> Result<Seed, String> {
    let (id, state) = value.split_once('=').ok_or("--certificate expects ID=STATE")?;
    Ok(Seed::new(id).status(state.parse()?))
}

/// Returns the certificates that the help text lists first.
fn first_certificates() -> Vec<Seed> {
    vec![
        Seed::new("scs1000000000001").product(Product::new("DV_SSL_CERT", "SINGLE_DOMAIN")),
        Seed::new("scs1000000000002").product(Product::new("OV_SSL_CERT", "MULTI_DOMAIN")),
        Seed::new("scs1000000000003").status(Status::Issued),
        Seed::new("scs1000000000004").status(Status::Upload),
    ]
}

fn print_request(processed: &Processed) {
    let status = processed.status.map_or("-".to_owned(), |status| status.to_string());
    let rejection = processed.rejection.map_or(String::new(), |reason| format!(" rejected: {reason}"));
    println!("{} {} {status}{rejection}", processed.method, processed.path);
}

/// Returns the options for the certificates that the help text lists.
fn failing() -> Options {
    let throttled = r#"{"error_code": "APIG.0308", "error_msg": "The throttling threshold has been reached"}"#;
    let throttled = Reply::json(429, throttled).header("Retry-After", "1");
    Options {
        foreign: vec!["scs0000000000403".to_owned()],
        unknown: vec!["scs0000000000404".to_owned(), "nowhere".to_owned()],
        issued: vec!["scs0000000000412".to_owned()],
        steps: vec![
            ("scs0000000000429".to_owned(), Step::Reply(throttled)),
            ("scs0000000000504".to_owned(), Step::Hang),
        ],
        ..Options::default()
    }
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    let tls = arguments.authority.as_ref().map(|_| Tls::generate());
    if let Some((path, tls)) = arguments.authority.zip(tls.as_ref()) {
        std::fs::write(path, tls.ca_pem())?;
    }
    let Account { access_key, secret_key, .. } = arguments.account.clone();
    let options = Options {
        listen: arguments.listen,
        tls,
        accounts: vec![arguments.account],
        service_time: arguments.service_time,
        review_step: arguments.review_step,
        certificates: first_certificates().into_iter().chain(arguments.certificates).collect(),
        observer: Some(Arc::new(print_request)),
        ..failing()
    };
    let emulator = Emulator::start(options).await?;
    arguments.csrs.iter().for_each(|id| emulator.seed_csr(id, "www.example.com"));
    let endpoint = emulator.endpoint();
    println!("listening on {endpoint}; the gateway's environment:");
    println!("export HUAWEICLOUD_SDK_AK='{access_key}'");
    println!("export HUAWEICLOUD_SDK_SK='{secret_key}'");
    println!("export HUAWEICLOUD_SDK_PROJECT_ID='{SAMPLE_PROJECT}'");
    println!("export HUAWEICLOUD_SDK_DOMAIN_ID='{SAMPLE_DOMAIN}'");
    println!("export SCM_GATEWAY__UPSTREAM__ENDPOINT='{endpoint}'");
    tokio::signal::ctrl_c().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match arguments(std::env::args().skip(1)) {
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(arguments)) => {
            let listen = arguments.listen;
            run(arguments).await.map_err(|error| format!("{listen}: {error}"))
        }
        Err(text) => {
            eprintln!("{text}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
