//! Runs the emulator for manual use: `cargo run -p scm-emulator --example scm-emulator`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod temporary;

use std::process::ExitCode;
use std::sync::Arc;

use scm_emulator::{
    Account, Emulator, Options, Processed, Product, Reply, SAMPLE_DOMAIN, SAMPLE_PROJECT, Seed, Status, Step, Tls,
};

use arguments::{Arguments, HELP};

/// Returns the certificates that the help text lists first.
fn first_certificates() -> Vec<Seed> {
    vec![
        Seed::new("scs1000000000001").product(Product::new("DV_SSL_CERT", "SINGLE_DOMAIN")),
        Seed::new("scs1000000000002").product(Product::new("OV_SSL_CERT", "MULTI_DOMAIN")),
        Seed::new("scs1000000000003").status(Status::Issued),
        Seed::new("scs1000000000004").status(Status::Upload),
    ]
}

pub(crate) fn print_request(processed: &Processed) {
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
        tls: tls.clone(),
        accounts: vec![arguments.account],
        service_time: arguments.service_time,
        review_step: arguments.review_step,
        certificates: first_certificates().into_iter().chain(arguments.certificates).collect(),
        observer: Some(Arc::new(print_request)),
        ..failing()
    };
    let emulator = Emulator::start(options).await?;
    arguments.csrs.iter().for_each(|id| emulator.seed_csr(id, "www.example.com"));
    let services = temporary::start(&arguments.temporary, tls, &emulator.issuer()).await?;
    let endpoint = emulator.endpoint();
    println!("listening on {endpoint}; the gateway's environment:");
    if arguments.temporary.is_any() {
        // Another source would precede the one that is started now.
        println!("unset HUAWEICLOUD_SDK_AK HUAWEICLOUD_SDK_SK");
        println!("unset HUAWEICLOUD_OIDC_PROVIDER_URN HUAWEICLOUD_OIDC_AGENCY_URN HUAWEICLOUD_OIDC_TOKEN_FILE");
        println!("unset HC_CONTAINER_CREDENTIALS_FULL_URI HC_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        println!("unset SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT");
    } else {
        println!("export HUAWEICLOUD_SDK_AK='{access_key}'");
        println!("export HUAWEICLOUD_SDK_SK='{secret_key}'");
    }
    for (name, value) in &services.variables {
        println!("export {name}='{value}'");
    }
    println!("export HUAWEICLOUD_SDK_PROJECT_ID='{SAMPLE_PROJECT}'");
    println!("export HUAWEICLOUD_SDK_DOMAIN_ID='{SAMPLE_DOMAIN}'");
    println!("export SCM_GATEWAY__UPSTREAM__ENDPOINT='{endpoint}'");
    tokio::signal::ctrl_c().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match arguments::parse(std::env::args().skip(1)) {
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
