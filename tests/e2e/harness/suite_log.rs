//! Everything that one run of the suites logs, at `trace`, in one file for each test target: `.ci/run` looks for secrets
//! in it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    sync::{Mutex, OnceLock},
};

use scm_gateway::telemetry::log::{self, Log};

const PATH: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/", env!("CARGO_CRATE_NAME"), ".log");

static LOG: OnceLock<(Mutex<File>, Log)> = OnceLock::new();

/// Logs what the gateways of this process log.
pub fn start() -> &'static Mutex<File> {
    let (file, _) = LOG.get_or_init(|| {
        File::create(PATH).unwrap();
        let open = || OpenOptions::new().append(true).open(PATH).unwrap();
        (Mutex::new(open()), log::start_to(open(), Some("trace")))
    });
    file
}

/// Adds a line that a gateway in a process of its own has logged.
pub fn add(line: &str) {
    writeln!(start().lock().unwrap(), "{line}").unwrap();
}
