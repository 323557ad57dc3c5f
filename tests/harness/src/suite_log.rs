//! Everything that one run of the suites logs, at `trace`, and every series of its metrics, in two files for each test
//! target: `.ci/run` looks for secrets in them, and for the metrics that alerts and dashboards name.

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

/// Logs what the gateways of this process log.
pub fn start() -> &'static Mutex<File> {
    let (file, _) = LOG.get_or_init(|| {
        File::create(path("log")).unwrap();
        let open = || OpenOptions::new().append(true).open(path("log")).unwrap();
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
    let series = SERIES.get_or_init(|| Mutex::new((BTreeSet::new(), File::create(path("metrics")).unwrap())));
    let (known, file) = &mut *series.lock().unwrap();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        if let Some((one, _)) = line.rsplit_once(' ')
            && known.insert(one.to_owned())
        {
            writeln!(file, "{one}").unwrap();
        }
    }
}
