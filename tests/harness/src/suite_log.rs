//! Collects all log lines of a test target, at `trace`, and all its metric series, in two files. `make secrets` searches
//! the files for secrets, and for the metrics that alerts and dashboards use.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use scm_gateway::ops::telemetry::log::{self, Log};

/// Returns `target/tmp/SUITE.EXTENSION`. The test program is `target/PROFILE/deps/SUITE-HASH`.
fn path(extension: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.ancestors().nth(3).unwrap().join("tmp");
    fs::create_dir_all(&folder).unwrap();
    let name = program.file_stem().unwrap().to_str().unwrap();
    let (suite, _) = name.rsplit_once('-').unwrap_or((name, ""));
    folder.join(format!("{suite}.{extension}"))
}

static LOG: OnceLock<(Mutex<File>, Log)> = OnceLock::new();

/// Starts the log of the gateways in this process.
pub fn start() -> &'static Mutex<File> {
    let (file, _) = LOG.get_or_init(|| {
        File::create(path("log")).unwrap();
        let open = || OpenOptions::new().append(true).open(path("log")).unwrap();
        (Mutex::new(open()), log::start_to(open(), Some("trace")))
    });
    file
}

/// Adds a log line of a gateway in another process.
pub fn add(line: &str) {
    writeln!(start().lock().unwrap(), "{line}").unwrap();
}

/// Adds the series of a metrics page, without their values.
pub fn add_metrics(page: &str) {
    static SERIES: OnceLock<Mutex<(BTreeSet<String>, File)>> = OnceLock::new();
    let series = SERIES.get_or_init(|| Mutex::new((BTreeSet::new(), File::create(path("metrics")).unwrap())));
    let (known, file) = &mut *series.lock().unwrap();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        if let Some((series, _)) = line.rsplit_once(' ')
            && known.insert(series.to_owned())
        {
            writeln!(file, "{series}").unwrap();
        }
    }
}
