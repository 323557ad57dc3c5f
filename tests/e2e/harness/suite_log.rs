//! Everything that one run of the suites logs, at `trace`, and every series of its metrics, in two files for each test
//! target: `.ci/run` looks for secrets in them, and for the metrics that alerts and dashboards name.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write as _,
    sync::{Mutex, OnceLock},
};

use scm_gateway::telemetry::log::{self, Log};

const PATH: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/", env!("CARGO_CRATE_NAME"), ".log");

const METRICS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/", env!("CARGO_CRATE_NAME"), ".metrics");

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

/// Adds the series of a page of metrics, without their values.
pub fn add_metrics(page: &str) {
    static SERIES: OnceLock<Mutex<(BTreeSet<String>, File)>> = OnceLock::new();
    let series = SERIES.get_or_init(|| Mutex::new((BTreeSet::new(), File::create(METRICS).unwrap())));
    let (known, file) = &mut *series.lock().unwrap();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        if let Some((one, _)) = line.rsplit_once(' ')
            && known.insert(one.to_owned())
        {
            writeln!(file, "{one}").unwrap();
        }
    }
}
