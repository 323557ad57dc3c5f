//! The command line: arguments, signals and exit codes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    CommandFactory as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scm_gateway::{
    app, call,
    clock::Clock,
    config::{self, Config, Environment},
    ops::{health_check, telemetry},
    runtime::{self, Workers},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// mimalloc takes a tenth fewer instructions a call than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h: the configuration or the command line is wrong, and a restart does not help.
const EX_CONFIG: u8 = 78;

/// The part of `--help` after the arguments.
const MANUAL: &str = "\
Minimal start:
  export HUAWEICLOUD_SDK_AK=… HUAWEICLOUD_SDK_SK=… HUAWEICLOUD_SDK_PROJECT_ID=…
  scm-gateway

Configuration, from three sources that can be combined:
  HUAWEICLOUD_SDK_*          one project and its credentials, if no file lists projects; or the vendor's profile file
  HUAWEICLOUD_OIDC_*         that project without a stored key: OIDC federation; HC_CONTAINER_* for the pod identity of
                             CCE. docs/credentials.md has every source
  --config FILE              every key; needed for several projects, credential files, and lists of callers
  SCM_GATEWAY__SECTION__KEY  any key of the file, such as SCM_GATEWAY__UPSTREAM__TIMEOUT=5s; overrides the file
  deploy/scm-gateway.toml has every key with its default, and docs/configuration.md explains them. --check reads
  everything that a start reads, prints every problem at once, or the effective values and their sources.
  OTEL_EXPORTER_OTLP_ENDPOINT and the other OTEL_* variables export telemetry; RUST_LOG filters the log on
  standard output.

Addresses:
  127.0.0.1:50051  server.listen  gRPC: calls, health, reflection; plain text, or TLS with [server.tls]
  127.0.0.1:9464   admin.listen   HTTP: /livez, /readyz, /metrics, a status page at /; --health requests /livez

Call by hand:
  scm-gateway call ReadInfo -d '{\"cert_id\": \"scs1481110651012\"}'
  calls the gateway that runs with this configuration, or another one; `scm-gateway call --help` explains it.

Signals:
  SIGTERM, SIGINT  drain: calls in flight finish, within server.drain (20s); a second signal exits at once
  SIGHUP           no effect: credential files and certificates are reloaded without it

Exit codes:
  0         drained; --check found no problem; --health: the gateway is live
  1         --health: the gateway is not live, or does not respond
  78        the configuration or the command line is wrong, or an address cannot be bound
  143, 130  exited at once after a second SIGTERM or SIGINT";

/// scm-gateway: gRPC in front of the REST API of Huawei Cloud SSL Certificate Manager (SCM).
///
/// For services that fill in certificate applications and should hold no cloud credentials. A typed call is
/// validated and becomes one signed REST request. Its response returns as a reply or as a status with details.
/// Every call is traced with OpenTelemetry.
#[derive(Parser)]
#[command(name = "scm-gateway", version, verbatim_doc_comment, after_long_help = MANUAL, disable_help_subcommand = true)]
struct Arguments {
    /// Read the configuration from this TOML file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check and print the configuration, then exit with 0 or 78
    #[arg(long)]
    check: bool,
    /// Check that the gateway running with this configuration is live, then exit with 0 or 1
    #[arg(long, conflicts_with = "check")]
    health: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Call(Box<call::Arguments>),
}

impl Arguments {
    /// Parses the command line. A command has no use for the switches of the gateway.
    fn parse_all() -> Result<Self, clap::Error> {
        let arguments = Self::try_parse().map_err(without_values)?;
        if arguments.command.is_some() && (arguments.check || arguments.health) {
            let message = "--check and --health cannot be used with a command";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(arguments)
    }
}

/// Replaces a part of the command line in an error, which may be a private key, unless it is like the name of an option.
fn without_values(mut error: clap::Error) -> clap::Error {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => ContextKind::InvalidValue,
    };
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_option = |text: &str| text.starts_with('-') && text.len() < 30 && is_name(text);
    if let Some(ContextValue::String(text)) = error.get(kind)
        && !text.is_empty()
        && !is_option(text)
    {
        error.insert(kind, ContextValue::String("…".to_owned()));
        error.remove(ContextKind::Suggested); // how to pass the value
    }
    error
}

fn main() -> ExitCode {
    forbid_core_dumps();
    telemetry::log::hook_panics();
    let arguments = match Arguments::parse_all() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let is_success = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if is_success { 0 } else { EX_CONFIG });
        }
    };
    unblock_signals();
    raise_file_limit();
    let environment = config::process_environment();
    if let Some(Command::Call(call)) = &arguments.command {
        return call::run(call, arguments.config.as_deref(), &environment);
    }
    if arguments.health {
        return health(arguments.config.as_deref(), &environment);
    }
    let config = match config::load(arguments.config.as_deref(), &environment, &Clock::system()) {
        Ok(config) => config,
        Err(problems) => return bad_start(problems),
    };
    let runtime = match runtime::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return bad_start(error),
    };
    let filter = environment.get("RUST_LOG").cloned();
    drop(environment); // it may hold credentials
    if arguments.check { check(&runtime, &config) } else { serve(runtime, config, filter.as_deref()) }
}

/// Switches core dumps off, because the memory holds credentials, private keys and personal data. The limit of zero does not
/// stop a dump that the kernel pipes to a program (core(5)); that a process is not dumpable does, and keeps other
/// processes of the same user from reading its memory.
fn forbid_core_dumps() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }); // a limit can always be lowered
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable); // fails only for an invalid value
}

/// Unblocks the signals that are handled, which the parent may have blocked. Threads inherit the mask, so none may have
/// started. Signals that the parent ignores need nothing, because a handler replaces that.
fn unblock_signals() {
    let handled = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let _ = handled.thread_unblock(); // fails only for an invalid operation
}

/// Raises the soft limit of file descriptors to the hard limit. The usual soft limit of 1,024 is for programs that use
/// select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }); // on failure the soft limit stays
}

fn health(file: Option<&Path>, environment: &Environment) -> ExitCode {
    let address = match config::admin_address(file, environment) {
        Ok(address) => address,
        Err(problems) => return bad_start(problems),
    };
    match health_check::is_live(address) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => print_line(&mut std::io::stderr(), "scm-gateway: not live"),
        Err(error) => print_line(&mut std::io::stderr(), format_args!("scm-gateway: admin.listen: {error}")),
    }
    ExitCode::FAILURE
}

fn check(runtime: &Runtime, config: &Config) -> ExitCode {
    match runtime.block_on(app::check(config)) {
        Ok(()) => {
            for warning in &config.warnings {
                print_line(&mut std::io::stderr(), format_args!("warning: {warning}"));
            }
            print_line(&mut std::io::stdout(), config.listing() + "configuration OK");
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
    let flush_timeout = app::log_flush_timeout(config.server.drain);
    let result = runtime.block_on(async {
        let workers = Workers::start(config.server.worker_threads)?;
        app::run(config, workers, Clock::system(), started, stop()).await
    });
    runtime.shutdown_background(); // the drain is over
    log.flush(flush_timeout);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => bad_start(error),
    }
}

/// Handles signals from now on. Completes at the first SIGTERM or SIGINT; the second one exits the process. SIGHUP has no
/// effect.
fn stop() -> impl Future<Output = ()> {
    let listen = |kind| signal(kind).expect("the runtime has its signal driver");
    let mut terminate = listen(SignalKind::terminate());
    let mut interrupt = listen(SignalKind::interrupt());
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
            std::process::exit(128 + again.as_raw_value()); // the shell's exit code for a signal
        });
    }
}

fn bad_start(problem: impl std::fmt::Display) -> ExitCode {
    for line in problem.to_string().lines() {
        print_line(&mut std::io::stderr(), format_args!("scm-gateway: {line}"));
    }
    ExitCode::from(EX_CONFIG)
}

/// Prints a line. Ignores a closed output.
fn print_line(to: &mut impl std::io::Write, line: impl std::fmt::Display) {
    let _ = writeln!(to, "{line}");
}
