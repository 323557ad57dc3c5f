//! The emulator on its own, for people: `cargo run -p scm-emulator --example scm-emulator`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use scm_emulator::{Answered, Emulator, Options, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY, Tls};

const HELP: &str = "\
Emulates the SCM endpoint: verifies signatures and keeps what is saved, in memory.

Usage: scm-emulator [--listen ADDR] [--tls FILE]

  --listen ADDR   address and port to listen on [default: 127.0.0.1:18080]
  --tls FILE      speak TLS, as localhost and 127.0.0.1, and write the authority's certificate to FILE
  --help          this text";

enum Arguments {
    Help,
    Listen(SocketAddr, Option<PathBuf>),
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut listen, mut tls) = ("127.0.0.1:18080".to_owned(), None);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Arguments::Help),
            "--listen" => listen = args.next().ok_or("--listen needs an address")?,
            "--tls" => tls = Some(args.next().ok_or("--tls needs a file")?.into()),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    let address = listen.parse().map_err(|_| format!("{listen} is no address with a port"))?;
    Ok(Arguments::Listen(address, tls))
}

fn print_request(answered: &Answered) {
    let status = answered.status.map_or("-".to_owned(), |status| status.to_string());
    let refusal = answered.refusal.map_or(String::new(), |reason| format!(" refused: {reason}"));
    println!("{} {} {status}{refusal}", answered.method, answered.path);
}

async fn run(listen: SocketAddr, authority: Option<PathBuf>) -> std::io::Result<()> {
    let tls = authority.as_ref().map(|_| Tls::generate());
    if let Some((path, tls)) = authority.zip(tls.as_ref()) {
        std::fs::write(path, tls.ca_pem())?;
    }
    let options = Options { listen, tls, observer: Some(Arc::new(print_request)), ..Options::default() };
    let emulator = Emulator::start(options).await?;
    let endpoint = emulator.endpoint();
    println!("listening on {endpoint}; made-up credentials to call it with:");
    println!("export HUAWEICLOUD_SDK_AK='{SAMPLE_ACCESS_KEY}'");
    println!("export HUAWEICLOUD_SDK_SK='{SAMPLE_SECRET_KEY}'");
    println!("export HUAWEICLOUD_SDK_PROJECT_ID='{SAMPLE_PROJECT}'");
    println!("export SCM_GATEWAY__UPSTREAM__ENDPOINT='{endpoint}'");
    tokio::signal::ctrl_c().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match arguments(std::env::args().skip(1)) {
        Ok(Arguments::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Arguments::Listen(address, tls)) => run(address, tls).await.map_err(|error| format!("{address}: {error}")),
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
