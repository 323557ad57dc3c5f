//! The circuit in front of an SCM that is not there: after some failed calls in a row it opens, and one call at a time
//! looks whether circuit closed.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::{
    chance, clock, config,
    error::{Error, Progress, Reason},
};

/// What a call tells about SCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered.
    Alive,
    /// It is not reachable or not available.
    Down,
    /// Nothing.
    Unknown,
}

impl Verdict {
    pub(super) fn of<R>(result: &Result<R, Error>) -> Self {
        result.as_ref().map_or_else(Self::from, |_| Self::Alive)
    }

    /// The same of a call that has also heard this, from an attempt before its last one. Where its time was over in the
    /// midst of another, that is all that is known.
    pub(super) fn or(self, before: Option<Self>) -> Self {
        match self {
            Self::Unknown => before.unwrap_or(self),
            told => told,
        }
    }
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Self {
        match error.reason {
            Reason::UpstreamUnavailable | Reason::UpstreamTimeout => Self::Down,
            _ if error.progress == Progress::Answered => Self::Alive,
            _ => Self::Unknown,
        }
    }
}

#[derive(Debug)]
pub(super) struct Circuit {
    project_id: String,
    policy: config::Circuit,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, wait: Duration },
    Probing { wait: Duration, since: Instant },
}

/// Leave to make one call. Dropped without a verdict, the call tells nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    probe: bool,
    verdict: Verdict,
}

impl Circuit {
    pub(super) fn new(project_id: String, policy: config::Circuit) -> Self {
        Self { project_id, policy, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Leave to make a call, or how long there is none.
    pub(super) fn admit(&self) -> Result<Pass<'_>, Duration> {
        let (now, mut state) = (clock::steady(), self.lock());
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, .. } if now < until => return Err(until - now),
            // A probe that hangs must not keep others from looking.
            State::Probing { wait, since } if now < since + wait => return Err(since + wait - now),
            State::Open { wait, .. } | State::Probing { wait, .. } => {
                *state = State::Probing { wait, since: now };
                true
            }
        };
        Ok(Pass { circuit: self, probe, verdict: Verdict::Unknown })
    }

    /// Whether calls are refused.
    pub(super) fn is_open(&self) -> bool {
        match *self.lock() {
            State::Closed { .. } => false,
            State::Open { until, .. } => clock::steady() < until,
            State::Probing { .. } => true,
        }
    }

    fn settle(&self, probe: bool, verdict: Verdict) {
        let mut state = self.lock();
        *state = match (*state, probe, verdict) {
            (State::Probing { .. }, true, Verdict::Alive) => {
                tracing::info!(project_id = self.project_id, "circuit closed");
                State::Closed { failures: 0 }
            }
            (State::Probing { wait, .. }, true, Verdict::Down) => self.open((wait * 2).min(self.policy.max_open)),
            (State::Probing { wait, .. }, true, Verdict::Unknown) => State::Open { until: clock::steady(), wait },
            (State::Closed { .. }, false, Verdict::Alive) => State::Closed { failures: 0 },
            (State::Closed { failures }, false, Verdict::Down) if failures + 1 >= self.policy.failures => {
                tracing::warn!(project_id = self.project_id, "circuit opened");
                self.open(self.policy.open)
            }
            (State::Closed { failures }, false, Verdict::Down) => State::Closed { failures: failures + 1 },
            // Calls that were on their way when it opened have nothing to add.
            (unchanged, ..) => unchanged,
        };
    }

    fn open(&self, wait: Duration) -> State {
        State::Open { until: clock::steady() + chance::about(wait), wait }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

impl Pass<'_> {
    /// Ends the call.
    pub(super) fn settle(mut self, verdict: Verdict) {
        self.verdict = verdict; // told when it is dropped
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.circuit.settle(self.probe, self.verdict);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Circuit, Verdict};
    use crate::config;

    fn circuit() -> Circuit {
        Circuit::new(
            "p".to_owned(),
            config::Circuit { failures: 3, open: Duration::from_secs(1), max_open: Duration::from_secs(4) },
        )
    }

    fn calls(circuit: &Circuit, verdicts: &[Verdict]) {
        verdicts.iter().for_each(|verdict| circuit.admit().unwrap().settle(*verdict));
    }

    /// The time that a refused call is told is the truth, but for jitter.
    async fn wait(circuit: &Circuit, about: u64) {
        let told = circuit.admit().unwrap_err();
        let about = Duration::from_secs(about);
        assert!(told >= about.mul_f64(0.9) && told <= about.mul_f64(1.1), "{told:?}");
        advance(told - Duration::from_millis(1)).await;
        assert!(circuit.admit().is_err(), "not a moment earlier");
        advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_only_then() {
        use Verdict::{Alive, Down, Unknown};
        let circuit = circuit();
        calls(&circuit, &[Down, Down, Alive, Down, Down, Unknown]);
        assert!(!circuit.is_open());
        calls(&circuit, &[Down]);
        assert!(circuit.is_open() && circuit.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_probes_and_the_wait_doubles_to_its_bound() {
        let circuit = circuit();
        calls(&circuit, &[Verdict::Down; 3]);
        for about in [1, 2, 4, 4] {
            wait(&circuit, about).await;
            let probe = circuit.admit().unwrap();
            assert!(circuit.admit().is_err(), "one probe at a time");
            probe.settle(Verdict::Down);
        }
        wait(&circuit, 4).await;
        circuit.admit().unwrap().settle(Verdict::Alive);
        assert!(!circuit.is_open());
        calls(&circuit, &[Verdict::Down; 2]);
        assert!(!circuit.is_open(), "it counts from the start again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_tells_nothing_makes_room_for_the_next() {
        let circuit = circuit();
        calls(&circuit, &[Verdict::Down; 3]);
        wait(&circuit, 1).await;
        drop(circuit.admit().unwrap());
        circuit.admit().unwrap().settle(Verdict::Alive);
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_does_not_keep_others_from_looking() {
        let circuit = circuit();
        calls(&circuit, &[Verdict::Down; 3]);
        wait(&circuit, 1).await;
        let hanging = circuit.admit().unwrap();
        advance(Duration::from_millis(400)).await;
        assert_eq!(circuit.admit().unwrap_err(), Duration::from_millis(600), "what is told is the truth");
        advance(Duration::from_millis(600)).await;
        circuit.admit().unwrap().settle(Verdict::Alive);
        assert!(!circuit.is_open());
        drop(hanging);
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_on_their_way_when_it_opens_change_nothing() {
        let circuit = circuit();
        let late = [circuit.admit().unwrap(), circuit.admit().unwrap()];
        calls(&circuit, &[Verdict::Down; 3]);
        late.into_iter().for_each(|pass| pass.settle(Verdict::Alive));
        assert!(circuit.is_open());
    }
}
