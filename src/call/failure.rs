//! How a call failed, as lines for a person and as an exit code.

use std::{collections::BTreeMap, error::Error, io};

use tokio::signal::unix::SignalKind;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::printable::printable;
use crate::grpc::status::code_name;

/// `EX_CONFIG` of sysexits.h: the configuration or the command line is wrong.
const EX_CONFIG: u8 = 78;

/// A call was made instead of a dry run.
const NO_DRY_RUN: u8 = 79;

/// The exit code of a status is its number more. grpcurl adds 64, which would make UNAVAILABLE the code of a wrong command
/// line.
const STATUS_BASE: u8 = 80;

/// Why a call has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line, the configuration or the request is wrong. One problem in a line.
    Usage(String),
    /// The call ended with a status.
    Status(Status),
    /// The gateway does not know dry runs, and has made the call.
    NoDryRun,
    /// Standard output cannot be written to.
    Output(io::Error),
    /// A signal ended the call.
    Signal(SignalKind),
}

impl Failure {
    /// Returns the failure of an option, with the causes of the error.
    pub(super) fn usage(option: &str, error: &(dyn Error + 'static)) -> Self {
        Self::Usage(with_causes(option.to_owned(), Some(error)))
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EX_CONFIG,
            Self::Status(status) => STATUS_BASE + u8::try_from(i32::from(status.code())).unwrap_or_default(),
            Self::NoDryRun => NO_DRY_RUN,
            Self::Output(_) => 1,
            Self::Signal(kind) => 128 + u8::try_from(kind.as_raw_value()).unwrap_or_default(),
        }
    }

    /// Returns the lines for standard error, without unprintable characters.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = match self {
            Self::Usage(problems) => problems.lines().map(|line| format!("scm-gateway: {line}")).collect(),
            Self::Status(status) => status_lines(status),
            Self::NoDryRun => vec!["scm-gateway: the gateway does not know dry runs: the call was made".to_owned()],
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Vec::new(), // as other programs in a pipe
            Self::Output(error) => vec![format!("scm-gateway: standard output: {error}")],
            Self::Signal(_) => Vec::new(),
        };
        lines.into_iter().map(|line| printable(&line)).collect()
    }
}

fn status_lines(status: &Status) -> Vec<String> {
    let mut lines =
        vec![format!("{}: {}", code_name(status.code()), with_causes(status.message().to_owned(), status.source()))];
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        lines.push(format!("  ErrorInfo   {} / {}", info.domain, info.reason));
        let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
        lines.extend(metadata.iter().map(|(key, value)| format!("              {key}: {value}")));
    }
    for violation in details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default() {
        lines.push(format!("  BadRequest  {}: {}", violation.field, violation.description));
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        lines.push(format!("  RetryInfo   {}", humantime::format_duration(delay)));
    }
    lines
}

/// Appends an error and its causes to a text. A status among them is for programs, and its causes say more.
fn with_causes(mut text: String, mut error: Option<&(dyn Error + 'static)>) -> String {
    while let Some(cause) = error {
        let message = cause.to_string();
        if !cause.is::<Status>() && !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        error = cause.source();
    }
    text
}
