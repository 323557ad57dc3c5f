//! Runs the real binary in its own process.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{environment, folder::Folder, suite_log, value_of};

/// Returns the path of the binary, which cargo builds with the tests: in the parent of the test programs' folder.
pub fn binary_path() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("scm-gateway")
}

pub fn binary(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary_path());
    command.env_clear().envs(variables.iter().copied()).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// A gateway in its own process, and its log.
pub struct Process {
    pub child: Child,
    pub address: String,
    pub admin: String,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    pub log: Vec<String>,
}

impl Process {
    pub async fn start(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        Self::spawn(binary(&[]), endpoint, variables).await
    }

    /// Starts a gateway that does not run as root. It is a copy, because `target` may be in root's home.
    pub async fn without_root(folder: &Folder, endpoint: &str, variables: &[(&str, &str)]) -> Self {
        const NOBODY: u32 = 65534;
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Self::start(endpoint, variables).await;
        }
        std::fs::set_permissions(folder.path("."), Permissions::from_mode(0o755)).unwrap();
        let copy = folder.path("scm-gateway");
        std::fs::copy(binary_path(), &copy).unwrap();
        let mut command = Command::new(copy);
        command.env_clear().kill_on_drop(true).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        Self::spawn(command, endpoint, variables).await
    }

    /// Starts a gateway with a limit of file descriptors.
    pub async fn with_descriptors(max: u32, endpoint: &str, variables: &[(&str, &str)]) -> Self {
        Self::after(&format!("ulimit -n {max}"), endpoint, variables).await
    }

    /// Starts a gateway from a shell that has run this script.
    pub async fn after(script: &str, endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("{script}; exec \"$0\"")).arg(binary_path());
        shell.env_clear().kill_on_drop(true).stdin(Stdio::null());
        Self::spawn(shell, endpoint, variables).await
    }

    async fn spawn(mut command: Command, endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = command.envs(environment(endpoint, variables)).stdout(Stdio::piped()).spawn().unwrap();
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut process = Self { child, address: String::new(), admin: String::new(), lines, log: Vec::new() };
        let serving = process.line("serving").await;
        let field = |name| serving[name].as_str().unwrap().to_owned();
        process.address = field("listen");
        process.admin = field("admin");
        process
    }

    /// Reads the log up to the next line whose message starts with `message`.
    pub async fn line(&mut self, message: &str) -> serde_json::Value {
        loop {
            let line = self.next_line().await.expect("the line is logged before the process ends");
            let json: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
            self.log.push(line);
            if json["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                return json;
            }
        }
    }

    async fn next_line(&mut self) -> Option<String> {
        let line = self.lines.as_mut()?.next_line().await.unwrap()?;
        suite_log::add(&line);
        Some(line)
    }

    /// Copies all further lines to the suite's log only.
    pub fn read_log(&mut self) {
        self.read_log_with(suite_log::add);
    }

    /// Calls a function with each further line.
    pub fn read_log_with(&mut self, read: impl Fn(&str) + Send + 'static) {
        let mut lines = self.lines.take().unwrap();
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                read(&line);
            }
        });
    }

    /// Stops reading the log.
    pub fn close_log(&mut self) {
        self.lines = None;
    }

    /// Returns the path of one of the process's files in `/proc`.
    pub fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id().unwrap()))
    }

    pub async fn metrics(&self) -> String {
        let page = reqwest::get(format!("http://{}/metrics", self.admin)).await.unwrap().text().await.unwrap();
        suite_log::add_metrics(&page);
        page
    }

    /// Returns the value of a metric without labels.
    pub async fn metric(&self, name: &str) -> u64 {
        value_of(&self.metrics().await, &format!("{name}{{"))
    }

    /// Returns the peak memory in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Returns a memory figure in KiB, by its name in proc(5).
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// Returns the CPU time so far (proc(5): `utime` and `stime`, in hundredths of a second).
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
        Duration::from_millis(10 * ticks)
    }

    /// Returns the number of connections that the gateway has accepted. A connection that still waits to be accepted has no
    /// inode.
    pub fn accepted_connections(&self) -> usize {
        const ESTABLISHED: &str = "01";
        let address: std::net::SocketAddr = self.address.trim_start_matches("http://").parse().unwrap();
        let port = format!(":{:04X}", address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_accepted = |line: &&str| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && columns[3] == ESTABLISHED && columns[9] != "0"
        };
        table.lines().skip(1).filter(is_accepted).count()
    }

    /// Returns the number of open file descriptors. Only root can read it, because the process is not dumpable.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process ends. Returns the exit code and the log.
    pub async fn end(mut self) -> (Option<i32>, Vec<String>) {
        while let Some(line) = self.next_line().await {
            self.log.push(line);
        }
        (self.child.wait().await.unwrap().code(), self.log)
    }
}
