//! Takes up a project's key anew when its files change, while calls go on.
//!
//! Files are looked at and compared, which is right for every way to change them: Kubernetes' swap of a link, a plain
//! write, a move. What changed is used once it reads the same twice, so a key's halves are not mixed while they are
//! being written; what cannot be read leaves the last good key in use.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    config::{KeySource, Projects},
    secret::Credentials,
    upstream::target::{Target, Targets},
};

/// Between two looks. A change is used after two of them.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks after the files of all projects until dropped.
pub async fn watch(projects: Projects, targets: Arc<Targets>, meter: Meter) {
    let reloads = reloads(&meter);
    let watched: Vec<_> = projects
        .iter()
        .filter_map(|project| {
            let source = project.key_source.is_in_files().then(|| project.key_source.clone())?;
            let (target, used) = (targets.get(&project.id)?.clone(), project.credentials.clone());
            Some(Watched { source, target, used, read: None, failed: false })
        })
        .collect();
    // Each at its own pace: files on a network that hangs hold up their own project alone.
    join_all(watched.into_iter().map(|project| project.look_after(&reloads))).await;
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

struct Watched {
    source: KeySource,
    target: Arc<Target>,
    used: Option<Credentials>,
    /// What differs from the key in use, as it was read last time.
    read: Option<Credentials>,
    failed: bool,
}

impl Watched {
    async fn look_after(mut self, reloads: &Counter<u64>) {
        loop {
            sleep(INTERVAL).await;
            self.look(reloads).await;
        }
    }

    async fn look(&mut self, reloads: &Counter<u64>) {
        let source = self.source.clone();
        let Ok(read) = spawn_blocking(move || source.read()).await else { return };
        let counted = |label| reloads.add(1, &outcome(&self.target.id, label));
        match read {
            Err(problem) => {
                if !self.failed {
                    tracing::warn!(project_id = self.target.id, problem, "the last good key stays in use");
                    counted("failed");
                }
                (self.failed, self.read) = (true, None);
            }
            Ok(credentials) => {
                self.failed = false;
                if credentials == self.used {
                    self.read = None;
                } else if self.read == credentials {
                    tracing::info!(project_id = self.target.id, "another key is in use now");
                    counted("used");
                    self.target.replace_key(credentials.clone());
                    (self.used, self.read) = (credentials, None);
                } else {
                    self.read = credentials;
                }
            }
        }
    }
}
