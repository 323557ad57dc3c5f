//! The `process_*` metrics, which Prometheus' client libraries serve for every process.
//!
//! The values come from `/proc/self`. A process that is not dumpable cannot be inspected by others of its user, but the
//! kernel lets its own threads read these files. A value that cannot be read has no series.

#![allow(clippy::cast_precision_loss, reason = "the values of Prometheus are f64")]

use std::{collections::HashMap, time::SystemTime};

use procfs::process::{LimitValue, Process, Stat};
use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, Metric, MetricFamily, MetricType},
};

use crate::clock::Clock;

/// Name, help, type, and how to get the value.
type Family = (&'static str, &'static str, MetricType, fn(&Readings) -> Option<f64>);

const FAMILIES: [Family; 7] = [
    ("process_cpu_seconds_total", "User and system CPU time", MetricType::COUNTER, |readings| {
        let stat = readings.stat.as_ref()?;
        Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    }),
    ("process_resident_memory_bytes", "Resident memory", MetricType::GAUGE, |readings| {
        Some((readings.stat.as_ref()?.rss * procfs::page_size()) as f64)
    }),
    ("process_virtual_memory_bytes", "Virtual memory", MetricType::GAUGE, |readings| {
        Some(readings.stat.as_ref()?.vsize as f64)
    }),
    ("process_open_fds", "Open file descriptors", MetricType::GAUGE, |readings| Some(readings.descriptors? as f64)),
    ("process_max_fds", "Limit of open file descriptors", MetricType::GAUGE, |readings| {
        Some(readings.max_descriptors? as f64)
    }),
    ("process_threads", "Threads of the operating system", MetricType::GAUGE, |readings| {
        Some(readings.stat.as_ref()?.num_threads as f64)
    }),
    ("process_start_time_seconds", "Start time of the process, in seconds since 1970", MetricType::GAUGE, |readings| {
        Some(readings.started)
    }),
];

/// What a scrape has read.
struct Readings {
    stat: Option<Stat>,
    descriptors: Option<usize>,
    max_descriptors: Option<u64>,
    /// In seconds since 1970.
    started: f64,
}

/// Reads the metrics of the process at each scrape.
pub(super) struct ProcessCollector {
    families: Vec<Desc>,
    /// In seconds since 1970. `/proc/stat`, which has the time of the boot, is hidden by systemd's `ProcSubset=pid`.
    started: f64,
}

impl ProcessCollector {
    /// Creates the collector at the start of the process.
    pub(super) fn start() -> prometheus::Result<Self> {
        let since_1970 = Clock::system().now().duration_since(SystemTime::UNIX_EPOCH);
        let families = FAMILIES
            .into_iter()
            .map(|(name, help, ..)| Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new()));
        Ok(Self {
            families: families.collect::<Result<_, _>>()?,
            started: since_1970.unwrap_or_default().as_secs_f64(),
        })
    }

    fn read(&self) -> Readings {
        let process = Process::myself().ok();
        let process = process.as_ref();
        let limits = process.and_then(|process| process.limits().ok());
        let max_descriptors = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(max) => Some(max),
            LimitValue::Unlimited => None,
        });
        Readings {
            stat: process.and_then(|process| process.stat().ok()),
            descriptors: process.and_then(|process| process.fd_count().ok()),
            max_descriptors,
            started: self.started,
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let readings = self.read();
        let families = FAMILIES.into_iter().filter_map(|(name, help, kind, value)| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(vec![metric(kind, value(&readings)?)]);
            Some(family)
        });
        families.collect()
    }
}

fn metric(kind: MetricType, value: f64) -> Metric {
    let (mut counter, mut gauge, mut metric) = (Counter::default(), Gauge::default(), Metric::default());
    if kind == MetricType::COUNTER {
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
