//! The table of the soak, and its verdict.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    instance::{Instance, Sample},
    load::{Load, Tally},
};

/// The unexpected outcomes that are printed.
const MAX_PRINTED: usize = 20;

/// The warnings and errors that the instances log, by message, without those of calls, except where a
/// limit of the gateway was reached.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<BTreeMap<String, usize>>>);

impl Warnings {
    pub fn add(&self, line: &str) {
        let line: serde_json::Value = serde_json::from_str(line).expect("every line is JSON");
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        let is_call = text("message") == "call failed";
        if ["WARN", "ERROR"].contains(&text("level")) && (!is_call || text("reason") == "OVERLOADED") {
            let message = format!("{} {} {}", text("level"), text("message"), text("cause"));
            *self.0.lock().unwrap().entry(message).or_default() += 1;
        }
    }
}

#[derive(Default)]
pub struct Report {
    warnings: Warnings,
    calls: usize,
    faults: usize,
    failures: BTreeMap<String, usize>,
    latencies: Vec<Duration>,
    unexpected: Vec<String>,
    /// The first and the last quarter of each instance that has ended.
    lives: Vec<(Sample, Sample, bool)>,
}

impl Report {
    /// Prints the head of the table.
    pub fn start() -> Self {
        println!(
            "| minute | calls | with a fault | failed as implied | unexpected | RSS in MiB | descriptors | tasks | p99, longest in ms |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        Self::default()
    }

    pub fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// Prints the row of a minute. The resources are the last samples of the instances.
    pub fn minute(&mut self, minute: u32, mut tally: Tally, instances: &[Instance]) {
        let of_each = |value: fn(&Sample) -> u64| {
            let last = instances.iter().filter_map(|instance| instance.samples.last());
            last.map(|sample| value(sample).to_string()).collect::<Vec<_>>().join(", ")
        };
        println!(
            "| {minute} | {} | {} | {} | {} | {} | {} | {} | {}, {} |",
            tally.latencies.len(),
            tally.faults,
            by_reason(&tally.failures),
            tally.unexpected.len(),
            of_each(|sample| sample.kib / 1024),
            of_each(|sample| sample.descriptors),
            of_each(|sample| sample.tasks),
            percentile_99(&mut tally.latencies).as_millis(),
            tally.latencies.last().copied().unwrap_or_default().as_millis(),
        );
        for unexpected in tally.unexpected.iter().take(MAX_PRINTED) {
            println!("  unexpected: {unexpected}");
        }
        self.calls += tally.latencies.len();
        self.faults += tally.faults;
        self.latencies.append(&mut tally.latencies);
        self.unexpected.append(&mut tally.unexpected);
        for (reason, count) in tally.failures {
            *self.failures.entry(reason).or_default() += count;
        }
    }

    /// Adds an instance that has ended.
    pub fn ended(&mut self, instance: Instance) {
        self.lives.push(instance.trend());
    }

    /// Checks that each instance sent each wrong key once. No call may have failed because of it.
    pub fn rejections(&mut self, sent: usize, load: &Load) {
        let expected = load.expected_rejections();
        println!("\nwrong keys: {expected} requests expected to be rejected, {sent} rejected");
        if sent != expected {
            self.unexpected.push("wrong keys were sent another number of times".to_owned());
        }
    }

    /// Prints the summary, and returns the exit code.
    pub fn finish(mut self) -> ExitCode {
        println!(
            "\n| instance | RSS in KiB, first and last quarter | descriptors | tasks | flat |\n|---|---|---|---|---|"
        );
        for (nth, (first, last, is_flat)) in self.lives.iter().enumerate() {
            println!(
                "| {} | {}, {} | {}, {} | {}, {} | {} |",
                nth + 1,
                first.kib,
                last.kib,
                first.descriptors,
                last.descriptors,
                first.tasks,
                last.tasks,
                if *is_flat { "yes" } else { "NO" },
            );
        }
        println!("\nwarnings and errors in the logs:");
        for (message, count) in self.warnings.0.lock().unwrap().iter() {
            println!("  {count} {message}");
        }
        let is_flat = self.lives.iter().all(|(.., is_flat)| *is_flat);
        println!(
            "\n{} calls, {} with a fault, p99 {} ms, {} failed as implied ({}), {} ended otherwise, {}",
            self.calls,
            self.faults,
            percentile_99(&mut self.latencies).as_millis(),
            self.failures.values().sum::<usize>(),
            by_reason(&self.failures),
            self.unexpected.len(),
            if is_flat { "all instances flat" } else { "NOT FLAT" },
        );
        if is_flat && self.unexpected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn by_reason(failures: &BTreeMap<String, usize>) -> String {
    failures.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

fn percentile_99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default()
}
