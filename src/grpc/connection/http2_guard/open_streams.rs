//! The streams that are open on the wire: opened by the client, and without the last frame of their response.

use std::sync::Arc;

use crate::grpc::limit::connection_memory::Account;

/// The open streams of a connection, charged to its account.
pub(super) struct OpenStreams {
    /// In ascending order.
    ids: Vec<u32>,
    /// The largest number of streams that were open at the same time.
    peak: usize,
    pub(super) account: Arc<Account>,
}

impl OpenStreams {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { ids: Vec::new(), peak: 0, account }
    }

    /// Adds a stream with a higher id than all before.
    pub(super) fn open(&mut self, id: u32) {
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
