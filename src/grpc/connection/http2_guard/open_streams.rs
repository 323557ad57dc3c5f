//! The streams that are open on the wire: opened by the client, and without the last frame of their response.

use std::sync::Arc;

use crate::grpc::limit::connection_memory::Account;

/// The open streams of a connection, charged to its account.
pub(super) struct OpenStreams {
    /// In ascending order.
    ids: Vec<u32>,
    /// The largest number of streams that were open at the same time.
    peak: usize,
    /// The highest id that h2 does not ignore.
    max: u32,
    pub(super) account: Arc<Account>,
}

impl OpenStreams {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { ids: Vec::new(), peak: 0, max: u32::MAX, account }
    }

    /// Returns the highest id that h2 does not ignore.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// Ignores higher streams: after GOAWAY, h2 neither processes nor resets them.
    pub(super) fn ignore_above(&mut self, max: u32) {
        self.max = self.max.min(max);
        while self.ids.pop_if(|id| *id > max).is_some() {
            self.account.close_stream();
        }
    }

    /// Adds a stream with a higher id than all before.
    pub(super) fn open(&mut self, id: u32) {
        if id > self.max {
            return;
        }
        self.ids.push(id);
        let is_peak = self.ids.len() > self.peak;
        self.peak = self.peak.max(self.ids.len());
        self.account.open_stream(is_peak);
    }

    /// Removes a stream that the client has reset, or whose last frame has left.
    pub(super) fn close(&mut self, id: u32) {
        if let Ok(index) = self.ids.binary_search(&id) {
            self.ids.remove(index);
            self.account.close_stream();
        }
    }
}
