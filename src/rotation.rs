//! Takes up a project's key anew when its files change, while calls go on.
//!
//! Files are looked at and compared, which is right for every way to change them: Kubernetes' swap of a link, a plain
//! write, a move. What changed is used once it reads the same twice, so a key's halves are not mixed while they are
//! being written; what cannot be read leaves the last good key in use.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    config::{KeyFiles, Projects},
    secret::Credentials,
    upstream::target::{Target, Targets},
};

/// Between two looks. A change is used after two of them.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks after the files of all projects until dropped.
pub async fn watch(projects: Projects, targets: Arc<Targets>, meter: Meter) {
    let reloads = meter
        .u64_counter("scm_gateway.credentials.reloads")
        .with_description("Changes of a key's files, by outcome: used, or failed and the last good key stays")
        .build();
    let mut watched: Vec<_> = projects
        .iter()
        .filter_map(|project| {
            let (files, target) = (project.key_files.clone()?, targets.get(&project.id)?.clone());
            let used = project.credentials.clone();
            Some(Watched { files, target, used, read: None, failed: false })
        })
        .collect();
    while !watched.is_empty() {
        sleep(INTERVAL).await;
        for project in &mut watched {
            project.look(&reloads).await;
        }
    }
}

struct Watched {
    files: KeyFiles,
    target: Arc<Target>,
    used: Credentials,
    /// What differs from the key in use, as it was read last time.
    read: Option<Credentials>,
    failed: bool,
}

impl Watched {
    async fn look(&mut self, reloads: &Counter<u64>) {
        let files = self.files.clone();
        let Ok(read) = spawn_blocking(move || files.read()).await else { return };
        let counted = |outcome| {
            let labels = [KeyValue::new("scm.project_id", self.target.id.clone()), KeyValue::new("outcome", outcome)];
            reloads.add(1, &labels);
        };
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
                } else if self.read.as_ref() == Some(&credentials) {
                    tracing::info!(project_id = self.target.id, "another key is in use now");
                    counted("used");
                    self.target.replace_key(credentials.clone());
                    (self.used, self.read) = (credentials, None);
                } else {
                    self.read = Some(credentials);
                }
            }
        }
    }
}
