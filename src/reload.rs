//! Reloads credentials and certificates when their files change.
//!
//! Files are polled and compared, which works for every way to change them: Kubernetes' swap of a symbolic link, a write in
//! place, a rename. A change is applied once two polls in a row read the same, so that no file is used while it is being
//! written. While a file cannot be read, the previous content stays in use.

use std::sync::Arc;

use futures_util::future::join_all;
use opentelemetry::metrics::Meter;
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    clock::Clock,
    config::{self, secret::Credentials},
    grpc::connection::tls::Tls,
    ops::telemetry::reload_metrics::{ReloadMetrics, ReloadState},
    scm::{
        client::{project, transport::Transport},
        credentials::source::{self, DynSource, POLL_INTERVAL},
    },
};

/// Reloads the permanent credentials of all projects until dropped.
pub async fn credentials(projects: config::Projects, live: Arc<project::Projects>, meter: Meter) {
    let watchers = projects.iter().filter_map(|config| {
        let project = live.get(&config.id)?.clone();
        let current = config.credentials.clone()?;
        let source = source::permanent(&config.credentials_source, &current)?;
        let metrics = ReloadMetrics::of_credentials(&meter, project.id.clone(), project.reload_state.clone());
        let id = project.id.clone();
        let replace = move |credentials: &Credentials| {
            project.install_credentials(credentials.clone(), None);
            Ok(())
        };
        let on_event = move |event: ReloadEvent<'_>| {
            let project_id = &*id;
            match event {
                ReloadEvent::Applied => tracing::info!(project_id, "credentials reloaded"),
                ReloadEvent::Recovered => tracing::info!(project_id, "credential files recovered"),
                ReloadEvent::Failed(problem) => {
                    tracing::warn!(project_id, problem, "credentials reload failed, keeping the previous ones")
                }
            }
            event.count(&metrics);
        };
        Some(watch(move || poll(source.clone()), current, replace, on_event))
    });
    // Each project has a watcher of its own, so that files on a hanging network share delay only their own project.
    join_all(watchers).await;
}

/// Gets the credentials of a source after its next change.
async fn poll(source: Arc<DynSource<Credentials>>) -> Result<Credentials, String> {
    source.changed().await;
    source.get().await.map_err(|failure| failure.problem)
}

/// Reloads the listener's certificate, its key and the client CAs until dropped.
pub async fn listener(config: config::Tls, tls: Arc<Tls>, clock: Clock, meter: Meter) {
    let config::Tls { files, material } = config;
    let replace = |material: &_| tls.replace(material).map_err(|error| error.to_string());
    let on_event = certificate_events(&meter, "listener", tls.reload_state.clone());
    watch_files(move || files.read(&clock), material, replace, on_event).await;
}

/// Reloads the additional trust roots for SCM until dropped.
pub async fn trust_roots(ca: config::CaFile, transport: Arc<Transport>, meter: Meter) {
    let current = ca.certificates.clone();
    let replace = |roots: &Vec<_>| transport.set_trust_roots(roots).map_err(|error| error.to_string());
    let on_event = certificate_events(&meter, "upstream", ReloadState::default());
    watch_files(move || ca.read(), current, replace, on_event).await;
}

fn certificate_events(meter: &Meter, side: &'static str, state: ReloadState) -> impl FnMut(ReloadEvent<'_>) {
    let metrics = ReloadMetrics::of_certificates(meter, side, state);
    move |event| {
        match event {
            ReloadEvent::Applied => tracing::info!(side, "certificates reloaded"),
            ReloadEvent::Recovered => tracing::info!(side, "certificate files recovered"),
            ReloadEvent::Failed(problem) => {
                tracing::warn!(side, problem, "certificate reload failed, keeping the previous ones")
            }
        }
        event.count(&metrics);
    }
}

/// An event of the files that a watcher polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReloadEvent<'a> {
    /// Their new content is in use.
    Applied,
    /// After a failure they have the content again that is in use.
    Recovered,
    /// Their content cannot be used.
    Failed(&'a str),
}

impl ReloadEvent<'_> {
    fn count(self, metrics: &ReloadMetrics) {
        match self {
            Self::Applied => metrics.applied(),
            Self::Recovered => metrics.recovered(),
            Self::Failed(_) => metrics.failed(),
        }
    }
}

/// What a poll has found, once two polls in a row agree.
#[derive(Debug, PartialEq)]
enum Seen<T> {
    /// Nothing to do: the content is in use, or it is not stable yet.
    Nothing,
    /// The content in use.
    Current,
    /// Another content.
    Changed(T),
    /// No readable content.
    Failed(String),
}

/// Compares polls: a change or a failure counts only when two polls in a row read the same.
struct TwoPolls<T> {
    last: Option<Result<T, String>>,
}

impl<T: Clone + PartialEq> TwoPolls<T> {
    fn poll(&mut self, read: Result<T, String>, current: &T) -> Seen<T> {
        let is_stable = self.last.as_ref() == Some(&read);
        self.last = Some(read.clone());
        match read {
            Ok(value) if value == *current => Seen::Current,
            Ok(value) if is_stable => Seen::Changed(value),
            Err(problem) if is_stable => Seen::Failed(problem),
            _ => Seen::Nothing,
        }
    }
}

/// Polls files until dropped, as [`watch`] does. They are read on a thread that may block.
async fn watch_files<T: Clone + PartialEq + Send + 'static>(
    read: impl Fn() -> Result<T, String> + Clone + Send + 'static,
    current: T,
    apply: impl FnMut(&T) -> Result<(), String>,
    on_event: impl FnMut(ReloadEvent<'_>),
) {
    let poll = move || {
        let read = read.clone();
        async move {
            sleep(POLL_INTERVAL).await;
            spawn_blocking(read).await.unwrap_or_else(|_| Err("the read was aborted".to_owned()))
        }
    };
    watch(poll, current, apply, on_event).await;
}

/// Polls until dropped, and applies what differs from `current`. `poll` waits until it is worthwhile to read. Each failure is
/// reported once.
async fn watch<T: Clone + PartialEq, P: Future<Output = Result<T, String>>>(
    poll: impl Fn() -> P,
    mut current: T,
    mut apply: impl FnMut(&T) -> Result<(), String>,
    mut on_event: impl FnMut(ReloadEvent<'_>),
) {
    let mut polls = TwoPolls { last: None };
    let mut failure: Option<String> = None;
    loop {
        let failed = match polls.poll(poll().await, &current) {
            Seen::Nothing => continue,
            Seen::Current => {
                if failure.take().is_some() {
                    on_event(ReloadEvent::Recovered);
                }
                continue;
            }
            Seen::Changed(value) => match apply(&value) {
                Ok(()) => {
                    current = value;
                    failure = None;
                    on_event(ReloadEvent::Applied);
                    continue;
                }
                Err(problem) => problem,
            },
            Seen::Failed(problem) => problem,
        };
        if failure.as_ref() != Some(&failed) {
            on_event(ReloadEvent::Failed(&failed));
            failure = Some(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use super::{ReloadEvent, watch_files};

    /// Returns the applied values and the events of polls that read these values. The value 9 cannot be applied.
    async fn polled(reads: &[Result<u32, &str>]) -> (Vec<u32>, Vec<String>) {
        let reads: VecDeque<_> = reads.iter().map(|read| read.map_err(str::to_owned)).collect();
        let reads = Arc::new(Mutex::new(reads));
        let applied = Mutex::new(Vec::new());
        let events = Mutex::new(Vec::new());
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let done = Arc::new(Mutex::new(Some(done)));
        let read = move || {
            let mut reads = reads.lock().unwrap();
            if reads.len() == 1 {
                drop(done.lock().unwrap().take());
            }
            reads.pop_front().unwrap_or(Ok(0))
        };
        let apply = |value: &u32| match value {
            9 => Err("nine".to_owned()),
            value => {
                applied.lock().unwrap().push(*value);
                Ok(())
            }
        };
        let on_event = |event: ReloadEvent<'_>| events.lock().unwrap().push(format!("{event:?}"));
        tokio::select! {
            () = watch_files(read, 1, apply, on_event) => unreachable!(),
            _ = async { is_done.await.unwrap_err(); tokio::time::sleep(super::POLL_INTERVAL / 2).await } => {}
        }
        (applied.into_inner().unwrap(), events.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_applied_after_two_equal_polls() {
        assert_eq!(polled(&[Ok(1), Ok(2), Ok(3), Ok(3), Ok(3)]).await.0, [3]);
        assert_eq!(polled(&[Ok(2), Ok(1), Ok(2), Ok(1)]).await, (vec![], vec![]));
        let (applied, events) = polled(&[Ok(2), Ok(2), Ok(1), Ok(1)]).await;
        assert_eq!((applied, events.join(" ")), (vec![2, 1], "Applied Applied".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_and_its_end_are_reported_once() {
        let events = async |reads: &[Result<u32, &str>]| polled(reads).await.1.join(" ");
        let gone = r#"Failed("gone")"#;
        assert_eq!(events(&[Err("gone"), Ok(1), Err("gone")]).await, "", "transient, as while files are swapped");
        assert_eq!(events(&[Err("gone"), Err("gone"), Err("gone")]).await, gone);
        let another = events(&[Err("gone"), Err("gone"), Err("bad"), Err("bad")]).await;
        assert_eq!(another, format!(r#"{gone} Failed("bad")"#));
        let recovered = events(&[Err("gone"), Err("gone"), Ok(1), Err("gone"), Err("gone")]).await;
        assert_eq!(recovered, format!("{gone} Recovered {gone}"));
        assert_eq!(events(&[Err("gone"), Err("gone"), Ok(2), Ok(2), Ok(2)]).await, format!("{gone} Applied"));
    }

    #[tokio::test(start_paused = true)]
    async fn readable_content_that_cannot_be_used_is_a_failure() {
        let (applied, events) = polled(&[Ok(9), Ok(9), Ok(9), Ok(9), Ok(1), Ok(1)]).await;
        assert_eq!((applied, events.join(" ")), (vec![], r#"Failed("nine") Recovered"#.to_owned()));
    }
}
