//! Credentials in the profile file of the vendor's SDKs.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{Failure, POLL_INTERVAL, Source, blocking};
use crate::config::{read_profile, secret::Credentials};

pub(super) struct Profile(pub(super) PathBuf);

impl Source for Profile {
    type Credentials = Credentials;

    fn get(&self) -> BoxFuture<'_, Result<Credentials, Failure>> {
        let path = self.0.clone();
        Box::pin(blocking(move || read_profile(&path)))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(sleep(POLL_INTERVAL))
    }
}
