//! Runs the emulator for manual use: `cargo run -p scm-emulator --example scm-emulator`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use scm_emulator::{Account, Emulator, Options, Processed, Reply, SAMPLE_PROJECT, Step, Tls};

const HELP: &str = "\
Emulates the SCM endpoint: verifies signatures and keeps drafts in memory.

Usage: scm-emulator [--listen ADDR] [--tls FILE] [--key AK:SK] [--delay MS]

  --listen ADDR   address and port to listen on [default: 127.0.0.1:18080]
  --tls FILE      use TLS, as localhost and 127.0.0.1, and write the authority's certificate to FILE
  --key AK:SK     accept these credentials instead of the invented ones
  --delay MS      delay before each response, in milliseconds [default: 0]
  --help          show this text

Every certificate id of scs and 13 digits exists. Some always fail:
  scs0000000000403   belongs to another tenant
  scs0000000000404   does not exist
  scs0000000000412   is already issued: a save is rejected
  scs0000000000429   is throttled: retry after a second
  scs0000000000504   never gets a response: DEADLINE_EXCEEDED";

struct Arguments {
    listen: SocketAddr,
    authority: Option<PathBuf>,
    account: Account,
    service_time: Duration,
}

/// Parses the arguments. Returns `None` for `--help`.
fn arguments(mut args: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut listen = "127.0.0.1:18080".to_owned();
    let mut authority = None;
    let mut account = Account::sample();
    let mut service_time = Duration::ZERO;
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
            "--delay" => {
                let milliseconds = value()?.parse().map_err(|_| "--delay expects milliseconds")?;
                service_time = Duration::from_millis(milliseconds);
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    let listen = listen.parse().map_err(|_| format!("--listen expects an address with a port, not {listen}"))?;
    Ok(Some(Arguments { listen, authority, account, service_time }))
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
        unknown: vec!["scs0000000000404".to_owned()],
        issued: vec!["scs0000000000412".to_owned()],
        steps: vec![
            ("scs0000000000429".to_owned(), Step::Reply(throttled)),
            ("scs0000000000504".to_owned(), Step::Hang),
        ],
        ..Options::default()
    }
}

async fn run(Arguments { listen, authority, account, service_time }: Arguments) -> std::io::Result<()> {
    let tls = authority.as_ref().map(|_| Tls::generate());
    if let Some((path, tls)) = authority.zip(tls.as_ref()) {
        std::fs::write(path, tls.ca_pem())?;
    }
    let Account { access_key, secret_key, .. } = account.clone();
    let accounts = vec![account];
    let options = Options { listen, tls, accounts, service_time, observer: Some(Arc::new(print_request)), ..failing() };
    let emulator = Emulator::start(options).await?;
    let endpoint = emulator.endpoint();
    println!("listening on {endpoint}; the gateway's environment:");
    println!("export HUAWEICLOUD_SDK_AK='{access_key}'");
    println!("export HUAWEICLOUD_SDK_SK='{secret_key}'");
    println!("export HUAWEICLOUD_SDK_PROJECT_ID='{SAMPLE_PROJECT}'");
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
