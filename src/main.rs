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
    workers::{self, Workers},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// A tenth fewer instructions a call than with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h: the configuration or the command line is wrong, and starting again does not help.
const EX_CONFIG: u8 = 78;

/// What `--help` says after the arguments.
const MANUAL: &str = "\
The least that is needed to start:
  export HUAWEICLOUD_SDK_AK=… HUAWEICLOUD_SDK_SK=… HUAWEICLOUD_SDK_PROJECT_ID=…
  scm-gateway

Three ways to configure it, which go together:
  HUAWEICLOUD_SDK_*          one project and its key, where no file lists projects; or the vendor's profile file
  --config FILE              every key; needed for several projects, keys in files, lists of callers
  SCM_GATEWAY__SECTION__KEY  any key of the file, such as SCM_GATEWAY__UPSTREAM__TIMEOUT=5s; wins over it
  deploy/scm-gateway.toml has every key with its default, and README.md explains them. What is in force, and
  where it came from, --check tells; it reads all that a start would read, and prints every problem at once.
  Telemetry goes out with OTEL_EXPORTER_OTLP_ENDPOINT and its like; RUST_LOG filters the log on standard output.

Addresses:
  127.0.0.1:50051  server.listen  gRPC: calls, health, reflection; plain text, or TLS with [server.tls]
  127.0.0.1:9464   admin.listen   HTTP: /livez, /readyz, /metrics; --health asks the first of them

Signals:
  SIGTERM, SIGINT  calls in flight finish, within server.drain (20s); a second one ends it at once
  SIGHUP           ends nothing: key files and certificates that change are taken up without it

Exit codes:
  0         drained; --check found nothing; --health: it lives
  1         --health: it does not, or nobody answers
  78        the configuration or the command line is wrong, or an address cannot be listened on
  143, 130  ended at once by a second SIGTERM or SIGINT";

/// scm-gateway: gRPC in front of the REST API of Huawei Cloud SSL Certificate Manager (SCM).
///
/// For services that fill in certificate applications and should hold no cloud key: a typed call comes in,
/// is checked, becomes one signed REST request, and its answer goes back as a reply or a status with details.
/// Every call is traced with OpenTelemetry.
#[derive(Parser)]
#[command(name = "scm-gateway", version, verbatim_doc_comment, after_long_help = MANUAL)]
struct Arguments {
    /// Read the configuration from this file, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration, and print it; ends with 0 or 78
    #[arg(long)]
    check: bool,
    /// Ask the gateway that runs with this configuration whether it lives; ends with 0 or 1
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
    let runtime = match workers::runtime() {
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
    let last_lines = run::last_lines(config.server.drain);
    let result = runtime.block_on(async {
        let workers = Workers::start(config.server.worker_threads)?;
        run(config, workers, Clock::system(), started, stop()).await
    });
    runtime.shutdown_background(); // what still runs has had its time
    log.finish(last_lines);
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
