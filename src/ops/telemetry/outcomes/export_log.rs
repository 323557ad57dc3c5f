//! What the log tells about exports: that they start to fail or to be too slow, and that they recover.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest interval between two lines about slow exports of a signal.
const SLOW_LINE_INTERVAL: Duration = Duration::from_secs(60);

/// A finished export.
#[derive(Debug, Clone, Copy)]
pub(super) struct Export {
    pub(super) failed: bool,
    /// Whether the export took too long, although it succeeded.
    pub(super) slow: bool,
    /// The spans that the full queue has dropped so far.
    pub(super) lost: u64,
    /// Whether more than half of the queue is in use.
    pub(super) backlog: bool,
}

/// What the log has told about a signal.
#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) failing: bool,
    pub(super) slow: bool,
    /// The lost spans at the last export, and at the last line.
    pub(super) lost: u64,
    lost_at_line: u64,
    slow_line: Option<Instant>,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Failed,
    Recovered,
    Slow { lost: u64 },
    FastEnough { lost: u64 },
}

impl Logged {
    /// Returns the lines about an export: when exports start to fail or to be too slow, and when they recover. While they
    /// are too slow, there is a line with the number of lost spans once in [`SLOW_LINE_INTERVAL`].
    pub(super) fn after(&mut self, export: Export, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        match (self.failing, export.failed) {
            (false, true) => lines.push(Line::Failed),
            (true, false) => lines.push(Line::Recovered),
            _ => {}
        }
        self.failing = export.failed;
        let is_slow = export.slow || export.lost > self.lost;
        self.lost = export.lost.max(self.lost);
        let lost = self.lost - self.lost_at_line;
        let is_due = self.slow_line.is_none_or(|line| now - line >= SLOW_LINE_INTERVAL);
        if (is_slow || lost > 0) && is_due {
            lines.push(Line::Slow { lost });
            (self.slow, self.slow_line, self.lost_at_line) = (true, Some(now), self.lost);
        } else if self.slow && !is_slow && !export.backlog && !export.failed {
            lines.push(Line::FastEnough { lost });
            (self.slow, self.lost_at_line) = (false, self.lost);
        }
        lines
    }
}

impl Line {
    /// Logs the line. The collector's error is omitted, because it may hold any data.
    pub(super) fn log(&self, signal: &'static str, took: Duration) {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Failed => tracing::warn!(signal, "telemetry export failed, data is lost"),
            Self::Recovered => tracing::info!(signal, "telemetry export recovered"),
            Self::Slow { lost } => tracing::warn!(signal, lost, duration_ms, "telemetry export is too slow"),
            Self::FastEnough { lost } => {
                tracing::info!(signal, lost, duration_ms, "telemetry export is fast enough again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// An export that succeeded in time.
    const GOOD: Export = Export { failed: false, slow: false, lost: 0, backlog: false };

    #[tokio::test(start_paused = true)]
    async fn slow_exports_are_logged_once_a_minute() {
        let lost = |lost| Export { lost, ..GOOD };
        let slow = Export { slow: true, ..GOOD };
        let backlog = |lost| Export { lost, backlog: true, ..GOOD };
        let failed = |lost| Export { failed: true, lost, ..GOOD };
        // Seconds since the previous export, the export, and its lines.
        type Step<'a> = (u64, Export, &'a [Line]);
        let table: [(&str, &[Step<'_>]); 6] = [
            ("in time", &[(0, GOOD, &[]), (60, GOOD, &[]), (0, backlog(0), &[])]),
            (
                "slow",
                &[
                    (0, slow, &[Line::Slow { lost: 0 }]),
                    (59, slow, &[]),
                    (1, slow, &[Line::Slow { lost: 0 }]),
                    (1, GOOD, &[Line::FastEnough { lost: 0 }]),
                    (1, GOOD, &[]),
                ],
            ),
            (
                "lost spans are counted since the last line",
                &[
                    (0, lost(3), &[Line::Slow { lost: 3 }]),
                    (10, lost(5), &[]),
                    (10, lost(9), &[]),
                    (40, lost(10), &[Line::Slow { lost: 7 }]),
                    (10, lost(12), &[]),
                    (10, backlog(12), &[]),
                    (10, lost(12), &[Line::FastEnough { lost: 2 }]),
                ],
            ),
            (
                "a loss within the minute is logged after it",
                &[
                    (0, lost(1), &[Line::Slow { lost: 1 }]),
                    (1, lost(1), &[Line::FastEnough { lost: 0 }]),
                    (1, lost(4), &[]),
                    (1, lost(4), &[]),
                    (57, lost(4), &[Line::Slow { lost: 3 }]),
                    (1, lost(4), &[Line::FastEnough { lost: 0 }]),
                ],
            ),
            ("failing", &[(0, failed(0), &[Line::Failed]), (1, failed(0), &[]), (1, GOOD, &[Line::Recovered])]),
            (
                "failing and losing",
                &[
                    (0, failed(2), &[Line::Failed, Line::Slow { lost: 2 }]),
                    (60, failed(5), &[Line::Slow { lost: 3 }]),
                    (1, failed(5), &[]),
                    (1, lost(5), &[Line::Recovered, Line::FastEnough { lost: 0 }]),
                ],
            ),
        ];
        for (name, exports) in table {
            let mut logged = Logged::default();
            for (index, (seconds, export, lines)) in exports.iter().enumerate() {
                tokio::time::advance(Duration::from_secs(*seconds)).await;
                assert_eq!(logged.after(*export, clock::monotonic()), *lines, "{name}, export {index}");
            }
        }
    }
}
