//! Takes up keys and certificates anew when their files change, while calls go on.
//!
//! Files are looked at and compared, which is right for every way to change them: Kubernetes' swap of a link, a plain
//! write, a move. What changed is used once it reads the same twice, so that no halves are mixed while they are being
//! written; what cannot be read leaves the last good one in use.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use opentelemetry::metrics::Meter;
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    config::{self, Projects},
    edge::tls::Tls,
    upstream::{target::Targets, transport::Transport},
};

mod reloads;

pub(crate) use reloads::Reloads;

/// Between two looks. A change is used after two of them.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks after the key files of all projects until dropped.
pub async fn keys(projects: Projects, targets: Arc<Targets>, meter: Meter) {
    let in_files = projects.iter().filter(|project| project.key_source.is_in_files());
    let watched = in_files.filter_map(|project| {
        let (source, used) = (project.key_source.clone(), project.credentials.clone());
        let target = targets.get(&project.id)?.clone();
        let (reloads, id) = (Reloads::of_key(&meter, target.id.clone()), target.id.clone());
        Some(look_after(
            move || source.read(),
            used,
            move |credentials| {
                target.replace_key(credentials.clone());
                Ok(())
            },
            move |news| {
                let project_id = &*id;
                match news {
                    News::Used => tracing::info!(project_id, "credentials reloaded"),
                    News::Recovered => tracing::info!(project_id, "credential files recovered"),
                    News::Problem(problem) => {
                        tracing::warn!(project_id, problem, "credentials reload failed, keeping the previous ones")
                    }
                }
                news.count(&reloads);
            },
        ))
    });
    // Each at its own pace: files on a network that hangs hold up their own project alone.
    join_all(watched).await;
}

/// Looks after the listener's certificate, its key and the clients' authorities until dropped.
pub async fn listener(config: config::Tls, tls: Arc<Tls>, meter: Meter) {
    let config::Tls { files, material } = config;
    let replace = |material: &_| tls.replace(material).map_err(|error| error.to_string());
    look_after(move || files.read(), material, replace, tell_of_certificates(&meter, "listener")).await;
}

/// Looks after the trust roots of the way to SCM until dropped.
pub async fn trust_roots(ca: config::CaFile, transport: Arc<Transport>, meter: Meter) {
    let used = ca.certificates.clone();
    let trust = |roots: &Vec<_>| transport.trust(roots).map_err(|error| error.to_string());
    look_after(move || ca.read(), used, trust, tell_of_certificates(&meter, "upstream")).await;
}

fn tell_of_certificates(meter: &Meter, side: &'static str) -> impl FnMut(News<'_>) {
    let reloads = Reloads::of_certificates(meter, side);
    move |news| {
        match news {
            News::Used => tracing::info!(side, "certificates reloaded"),
            News::Recovered => tracing::info!(side, "certificate files recovered"),
            News::Problem(problem) => {
                tracing::warn!(side, problem, "certificate reload failed, keeping the previous ones")
            }
        }
        news.count(&reloads);
    }
}

/// What there is to tell of some files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News<'a> {
    /// What they hold now is in use.
    Used,
    /// They hold again what is in use, after a problem.
    Recovered,
    /// What they hold cannot be used.
    Problem(&'a str),
}

impl News<'_> {
    fn count(self, reloads: &Reloads) {
        match self {
            Self::Used => reloads.used(),
            Self::Recovered => reloads.recovered(),
            Self::Problem(_) => reloads.failed(),
        }
    }
}

/// Reads again and again, until dropped, and applies what differs from what is `used` and can be. `tell` hears of it, and
/// of each problem once. Both count only if they stand at two looks in a row.
async fn look_after<T: Clone + PartialEq + Send + 'static>(
    read: impl Fn() -> Result<T, String> + Clone + Send + 'static,
    mut used: T,
    mut apply: impl FnMut(&T) -> Result<(), String>,
    mut tell: impl FnMut(News<'_>),
) {
    let (mut last, mut told) = (None, None);
    loop {
        sleep(INTERVAL).await;
        let Ok(now) = spawn_blocking(read.clone()).await else { return };
        let stands = last.as_ref() == Some(&now);
        let news = match &now {
            Ok(value) if *value == used => told.take().map(|_| Ok(News::Recovered)),
            Ok(value) if stands => Some(apply(value).map(|()| {
                (used, told) = (value.clone(), None);
                News::Used
            })),
            Err(problem) if stands => Some(Err(problem.clone())),
            _ => None,
        };
        match news {
            Some(Ok(news)) => tell(news),
            Some(Err(problem)) if told.as_ref() != Some(&problem) => {
                tell(News::Problem(&problem));
                told = Some(problem);
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

    use super::{News, look_after};

    /// What is used, in which 9 cannot be, and told, at looks that read these values one after the other.
    async fn found(reads: &[Result<u32, &str>]) -> (Vec<u32>, Vec<String>) {
        let reads: VecDeque<_> = reads.iter().map(|read| read.map_err(str::to_owned)).collect();
        let (reads, used, told) = (Arc::new(Mutex::new(reads)), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
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
                used.lock().unwrap().push(*value);
                Ok(())
            }
        };
        let tell = |news: News<'_>| told.lock().unwrap().push(format!("{news:?}"));
        tokio::select! {
            () = look_after(read, 1, apply, tell) => unreachable!(),
            _ = async { is_done.await.unwrap_err(); tokio::time::sleep(super::INTERVAL / 2).await } => {}
        }
        (used.into_inner().unwrap(), told.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_used_once_it_reads_the_same_twice() {
        assert_eq!(found(&[Ok(1), Ok(2), Ok(3), Ok(3), Ok(3)]).await.0, [3]);
        assert_eq!(found(&[Ok(2), Ok(1), Ok(2), Ok(1)]).await, (vec![], vec![]));
        let (used, told) = found(&[Ok(2), Ok(2), Ok(1), Ok(1)]).await;
        assert_eq!((used, told.join(" ")), (vec![2, 1], "Used Used".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn each_problem_is_told_once_if_it_stays_and_so_is_its_end() {
        let told = async |reads: &[Result<u32, &str>]| found(reads).await.1.join(" ");
        let gone = r#"Problem("gone")"#;
        assert_eq!(told(&[Err("gone"), Ok(1), Err("gone")]).await, "", "passing, as while files are swapped");
        assert_eq!(told(&[Err("gone"), Err("gone"), Err("gone")]).await, gone);
        let another = told(&[Err("gone"), Err("gone"), Err("bad"), Err("bad")]).await;
        assert_eq!(another, format!(r#"{gone} Problem("bad")"#));
        let recovered = told(&[Err("gone"), Err("gone"), Ok(1), Err("gone"), Err("gone")]).await;
        assert_eq!(recovered, format!("{gone} Recovered {gone}"));
        assert_eq!(told(&[Err("gone"), Err("gone"), Ok(2), Ok(2), Ok(2)]).await, format!("{gone} Used"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_reads_well_and_cannot_be_used_is_a_problem_told_once() {
        let (used, told) = found(&[Ok(9), Ok(9), Ok(9), Ok(9), Ok(1), Ok(1)]).await;
        assert_eq!((used, told.join(" ")), (vec![], r#"Problem("nine") Recovered"#.to_owned()));
    }
}
