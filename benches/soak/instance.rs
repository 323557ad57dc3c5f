//! An instance of the gateway, and samples of its resources.

use scm_emulator::Emulator;

use crate::{harness::process::Process, report::Warnings};

/// The samples at the start of a process that do not count: its buffers and connections are new.
const WARM_UP: usize = 3;

/// The tolerated growth of the median from the first to the last quarter of a process's life. The callers move from
/// instance to instance, and each of the 32 has a connection to SCM with a descriptor and a task.
const TOLERANCE: Sample = Sample { kib: 6 * 1024, descriptors: 32, tasks: 32 };

/// The resources that may leak.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub kib: u64,
    pub descriptors: u64,
    pub tasks: u64,
}

pub struct Instance {
    pub process: Process,
    pub samples: Vec<Sample>,
}

impl Instance {
    pub async fn start(emulator: &Emulator, variables: &[(String, String)], warnings: Warnings) -> Self {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut process = Process::start(&emulator.endpoint(), &variables).await;
        process.read_log_with(move |line| warnings.add(line));
        Self { process, samples: Vec::new() }
    }

    pub async fn sample(&mut self) {
        self.samples.push(Sample {
            kib: self.process.memory("VmRSS:"),
            descriptors: self.process.descriptors() as u64,
            tasks: self.process.metric("scm_gateway_runtime_alive_tasks").await,
        });
    }

    /// Drains the process, and returns its exit code.
    pub async fn end(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        self.process.child.wait().await.unwrap().code()
    }

    /// Returns the sum of a metric's series that have these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.process.metrics().await;
        let series =
            page.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Returns the medians of the first and the last quarter, and whether they differ by at most the tolerance.
    pub fn trend(&self) -> (Sample, Sample, bool) {
        let samples = self.samples.get(WARM_UP..).unwrap_or_default();
        let quarter = samples.len().div_ceil(4);
        let (first, last) = (median(&samples[..quarter]), median(&samples[samples.len() - quarter..]));
        let is_flat = last.kib <= first.kib + TOLERANCE.kib
            && last.descriptors <= first.descriptors + TOLERANCE.descriptors
            && last.tasks <= first.tasks + TOLERANCE.tasks;
        (first, last, is_flat)
    }
}

fn median(samples: &[Sample]) -> Sample {
    let of = |value: fn(&Sample) -> u64| {
        let mut values: Vec<_> = samples.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Sample { kib: of(|s| s.kib), descriptors: of(|s| s.descriptors), tasks: of(|s| s.tasks) }
}
