//! Credentials in files: one for each part.

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{Failure, POLL_INTERVAL, Source, blocking};
use crate::config::{CredentialFiles, secret::Credentials};

pub(super) struct Files(pub(super) CredentialFiles);

impl Source for Files {
    type Credentials = Credentials;

    fn get(&self) -> BoxFuture<'_, Result<Credentials, Failure>> {
        let files = self.0.clone();
        Box::pin(blocking(move || files.read()))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(sleep(POLL_INTERVAL))
    }
}
