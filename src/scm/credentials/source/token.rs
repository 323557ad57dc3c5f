//! The token that a service exchanges for credentials, in a file that its owner replaces.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use super::{Failure, blocking};
use crate::config::TokenFile;

/// The time between two polls for a changed token.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Token {
    file: TokenFile,
    /// A read of a hanging network share occupies a blocking thread, so there is one read at a time.
    reads: Arc<Semaphore>,
    /// The token of the last exchange.
    last: Mutex<Option<SecretString>>,
}

impl Token {
    pub(super) fn new(file: TokenFile) -> Self {
        Self { file, reads: Arc::new(Semaphore::new(1)), last: Mutex::default() }
    }

    /// Reads the token for an exchange.
    pub(super) async fn read(&self, deadline: Instant) -> Result<SecretString, Failure> {
        let late = |_| Err(Failure::failed("the token file was not read in time"));
        let token = timeout_at(deadline, self.load()).await.unwrap_or_else(late)?;
        *self.last() = Some(token.clone());
        Ok(token)
    }

    /// Waits until the file has another token than that of the last exchange.
    pub(super) async fn changed(&self) {
        loop {
            sleep(POLL_INTERVAL).await;
            let Ok(token) = self.load().await else { continue };
            if self.last().as_ref().is_none_or(|last| last.expose_secret() != token.expose_secret()) {
                return;
            }
        }
    }

    async fn load(&self) -> Result<SecretString, Failure> {
        let read = self.reads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let file = self.file.clone();
        blocking(move || {
            let _read = read; // held until the system responds, even if the exchange has ended
            file.read()
        })
        .await
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<SecretString>> {
        self.last.lock().expect("no panic while the lock is held")
    }
}
