//! The command line: arguments, configuration, signals and exit codes.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scm_gateway::{
    clock::Clock,
    config::{self, Config, Environment},
    health_check,
    run::{self, run},
    telemetry,
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// `EX_CONFIG` of sysexits.h: the configuration or the command line is wrong, and starting again does not help.
const EX_CONFIG: u8 = 78;

/// Saves certificate information at Huawei Cloud SCM for services that hold no cloud key: gRPC in, one signed REST
/// call out, every call traced.
///
/// Without a file, the defaults and the environment serve. The least that is needed is HUAWEICLOUD_SDK_AK,
/// HUAWEICLOUD_SDK_SK and HUAWEICLOUD_SDK_PROJECT_ID, or the profile file of the vendor's SDKs. Every key of the file
/// can be set as SCM_GATEWAY__SECTION__KEY, and the environment wins. Telemetry follows the OTEL_* variables, RUST_LOG
/// filters the log.
///
/// SIGTERM or SIGINT drains and ends with 0, a second one ends at once. A wrong configuration ends with 78.
#[derive(Parser)]
#[command(name = "scm-gateway", version)]
struct Arguments {
    /// The configuration, TOML; see deploy/scm-gateway.toml for every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read everything the server would read, print every problem, or every value and where it came from, and end with
    /// 0 or 78
    #[arg(long)]
    check: bool,
    /// Ask the gateway that runs with this configuration whether it lives, at its admin address, and end with 0 or 1;
    /// nothing but that address is read
    #[arg(long, conflicts_with = "check")]
    health: bool,
}

fn main() -> ExitCode {
    telemetry::log::hook_panics();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if fine { 0 } else { EX_CONFIG });
        }
    };
    raise_file_limit();
    let environment = config::environment(variables());
    if arguments.health {
        return health(arguments.config.as_deref(), &environment);
    }
    let config = match config::load(arguments.config.as_deref(), &environment) {
        Ok(config) => config,
        Err(problems) => return bad_start(problems),
    };
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return bad_start(error),
    };
    let filter = environment.get("RUST_LOG").cloned();
    drop(environment); // it may hold the key
    if arguments.check { check(&runtime, &config) } else { serve(runtime, config, filter.as_deref()) }
}

/// Takes all file descriptors that the process may have: the usual soft limit of 1,024 is for programs that use
/// select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }); // else the soft one holds
}

/// The one place that reads the process's environment.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
fn variables() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

fn health(file: Option<&Path>, environment: &Environment) -> ExitCode {
    let address = match config::admin_address(file, environment) {
        Ok(address) => address,
        Err(problems) => return bad_start(problems),
    };
    match health_check::lives(address) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => say(&mut std::io::stderr(), "scm-gateway: it does not say that it lives"),
        Err(error) => say(&mut std::io::stderr(), format_args!("scm-gateway: admin.listen: {error}")),
    }
    ExitCode::FAILURE
}

fn check(runtime: &Runtime, config: &Config) -> ExitCode {
    match runtime.block_on(run::check(config)) {
        Ok(()) => {
            for warning in &config.warnings {
                say(&mut std::io::stderr(), format_args!("warning: {warning}"));
            }
            say(&mut std::io::stdout(), &config.settings);
            say(&mut std::io::stdout(), "the configuration is good");
            ExitCode::SUCCESS
        }
        Err(error) => bad_start(error),
    }
}

fn serve(runtime: Runtime, config: Config, filter: Option<&str>) -> ExitCode {
    let log = telemetry::log::start(filter);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let (started, _) = oneshot::channel();
    let result = runtime.block_on(async { run(config, Clock::system(), started, stop()).await });
    runtime.shutdown_background(); // what still runs has had its time
    log.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => bad_start(error),
    }
}

/// Takes the signals from now on. Done at the first SIGTERM or SIGINT; the second ends the process. SIGHUP ends nothing.
fn stop() -> impl Future<Output = ()> {
    let listen = |kind| signal(kind).expect("the runtime has its signal driver");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let mut hangup = listen(SignalKind::hangup());
    tokio::spawn(async move { while hangup.recv().await.is_some() {} });
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        }
    };
    async move {
        next().await;
        tokio::spawn(async move {
            let again = next().await;
            std::process::exit(128 + again.as_raw_value()); // as the shell writes a death by signal
        });
    }
}

fn bad_start(problem: impl std::fmt::Display) -> ExitCode {
    for line in problem.to_string().lines() {
        say(&mut std::io::stderr(), format_args!("scm-gateway: {line}"));
    }
    ExitCode::from(EX_CONFIG)
}

/// Prints a line; a reader who has gone is no reason to fail.
fn say(to: &mut impl std::io::Write, line: impl std::fmt::Display) {
    let _ = writeln!(to, "{line}");
}
