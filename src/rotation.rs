//! Takes up keys and certificates anew when their files change, while calls go on.
//!
//! Files are looked at and compared, which is right for every way to change them: Kubernetes' swap of a link, a plain
//! write, a move. What changed is used once it reads the same twice, so that no halves are mixed while they are being
//! written; what cannot be read leaves the last good one in use.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    config::{self, Projects},
    edge::tls::Tls,
    upstream::{
        target::{Target, Targets},
        transport::Transport,
    },
};

/// Between two looks. A change is used after two of them.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks after the key files of all projects until dropped.
pub async fn keys(projects: Projects, targets: Arc<Targets>, meter: Meter) {
    let reloads = reloads(&meter);
    let in_files = projects.iter().filter(|project| project.key_source.is_in_files());
    let watched = in_files.filter_map(|project| {
        let (source, used) = (project.key_source.clone(), project.credentials.clone());
        let (target, reloads) = (targets.get(&project.id)?.clone(), &reloads);
        let count = move |target: &Target, label| reloads.add(1, &outcome(&target.id, label));
        Some(look_after(
            move || source.read(),
            used,
            move |read| match read {
                Ok(credentials) => {
                    tracing::info!(project_id = &*target.id, "another key is in use now");
                    target.replace_key(credentials.clone());
                    count(&target, "used");
                }
                Err(problem) => {
                    tracing::warn!(project_id = &*target.id, problem, "the last good key stays in use");
                    count(&target, "failed");
                }
            },
        ))
    });
    // Each at its own pace: files on a network that hangs hold up their own project alone.
    join_all(watched).await;
}

/// Looks after the listener's certificate, its key and the clients' authorities until dropped.
pub async fn listener(config: config::Tls, tls: Arc<Tls>, meter: Meter) {
    let config::Tls { files, material } = config;
    let reloads = CertificateReloads::new(&meter, "listener");
    let used = |material: &_| tls.replace(material).map_err(|error| error.to_string());
    look_after(move || files.read(), material, |read| reloads.tell(read.and_then(used))).await;
}

/// Looks after the trust roots of the way to SCM until dropped.
pub async fn trust_roots(ca: config::CaFile, transport: Arc<Transport>, meter: Meter) {
    let (used, reloads) = (ca.certificates.clone(), CertificateReloads::new(&meter, "upstream"));
    let trusted = |roots: &Vec<_>| transport.trust(roots).map_err(|error| error.to_string());
    look_after(move || ca.read(), used, |read| reloads.tell(read.and_then(trusted))).await;
}

/// Tells of changes of certificates on one side of the gateway.
struct CertificateReloads {
    counter: Counter<u64>,
    side: &'static str,
}

impl CertificateReloads {
    fn new(meter: &Meter, side: &'static str) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.tls.reloads")
            .with_description("Changes of certificates, by outcome: used, or failed and the last good ones stay")
            .build();
        Self { counter, side }
    }

    fn tell(&self, used: Result<(), String>) {
        let side = self.side;
        match &used {
            Ok(()) => tracing::info!(side, "other certificates are in use now, for new connections"),
            Err(problem) => tracing::warn!(side, problem, "the last good certificates stay in use"),
        }
        let outcome = if used.is_ok() { "used" } else { "failed" };
        self.counter.add(1, &[KeyValue::new("side", side), KeyValue::new("outcome", outcome)]);
    }
}

/// Counts changes of keys, by project and [`outcome`].
pub(crate) fn reloads(meter: &Meter) -> Counter<u64> {
    meter
        .u64_counter("scm_gateway.credentials.reloads")
        .with_description("Changes of a key, by outcome: used, or failed and the last good key stays")
        .build()
}

/// The labels of a change.
pub(crate) fn outcome(project_id: &str, outcome: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("scm.project_id", project_id.to_owned()), KeyValue::new("outcome", outcome)]
}

/// Reads again and again, until dropped. `found` hears of what differs from what is in use, and of a problem when it
/// begins; both only if they stand at two looks in a row.
async fn look_after<T: Clone + PartialEq + Send + 'static>(
    read: impl Fn() -> Result<T, String> + Clone + Send + 'static,
    mut used: T,
    mut found: impl FnMut(Result<&T, String>),
) {
    let (mut last, mut failed) = (None, false);
    loop {
        sleep(INTERVAL).await;
        let Ok(now) = spawn_blocking(read.clone()).await else { return };
        let twice = match (&last, &now) {
            (Some(Ok(last)), Ok(now)) => last == now,
            (Some(Err(_)), Err(_)) => true,
            _ => false,
        };
        match &now {
            Ok(value) if *value == used => failed = false,
            Ok(value) if twice => {
                found(Ok(value));
                (used, failed) = (value.clone(), false);
            }
            Err(problem) if twice && !failed => {
                found(Err(problem.clone()));
                failed = true;
            }
            _ => {}
        }
        last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use super::look_after;

    /// What is found at looks that read these values one after the other.
    async fn found(reads: &[Result<u32, &str>]) -> Vec<Result<u32, String>> {
        let reads: VecDeque<_> = reads.iter().map(|read| read.map_err(str::to_owned)).collect();
        let (reads, found) = (Arc::new(Mutex::new(reads)), Mutex::new(Vec::new()));
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let done = Arc::new(Mutex::new(Some(done)));
        let read = move || {
            let mut reads = reads.lock().unwrap();
            if reads.len() == 1 {
                drop(done.lock().unwrap().take());
            }
            reads.pop_front().unwrap_or(Ok(0))
        };
        tokio::select! {
            () = look_after(read, 1, |read| found.lock().unwrap().push(read.copied())) => unreachable!(),
            _ = async { is_done.await.unwrap_err(); tokio::time::sleep(super::INTERVAL / 2).await } => {}
        }
        found.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_used_once_it_reads_the_same_twice() {
        assert_eq!(found(&[Ok(1), Ok(2), Ok(3), Ok(3), Ok(3)]).await, [Ok(3)]);
        assert_eq!(found(&[Ok(2), Ok(1), Ok(2), Ok(1)]).await, []);
        assert_eq!(found(&[Ok(2), Ok(2), Ok(1), Ok(1)]).await, [Ok(2), Ok(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_problem_is_told_once_if_it_stays() {
        let gone = || Err("gone".to_owned());
        assert_eq!(found(&[Err("gone"), Ok(1), Err("gone")]).await, [], "passing, as while files are swapped");
        assert_eq!(found(&[Err("gone"), Err("gone"), Err("bad"), Err("bad")]).await, [gone()]);
        assert_eq!(found(&[Err("gone"), Err("gone"), Ok(1), Err("gone"), Err("gone")]).await, [gone(), gone()]);
        assert_eq!(found(&[Err("gone"), Err("gone"), Ok(2), Ok(2)]).await, [gone(), Ok(2)]);
    }
}
