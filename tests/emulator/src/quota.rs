//! The account's quota: a number of calls per fixed time window. Further calls get 429.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::http::Request;
use crate::scm::gateway_error;
use crate::script::Reply;
use crate::{Account, Options};

/// The current window of every access key: its start, and the number of calls in it.
#[derive(Debug, Default)]
pub(crate) struct Windows(Mutex<HashMap<String, (SystemTime, u32)>>);

impl Windows {
    /// Counts a call, and returns the 429 if the quota is exceeded. The first call starts the first window.
    pub(crate) fn count(&self, request: &Request, account: &Account, options: &Options) -> Option<Reply> {
        let quota = options.quota?;
        let now = (options.now)();
        let mut windows = self.0.lock().expect("no panic while the lock is held");
        let (start, calls) = windows.entry(account.access_key.clone()).or_insert((now, 0));
        if now.duration_since(*start).unwrap_or_default() >= quota.per {
            (*start, *calls) = (now, 0);
        }
        *calls += 1;
        (*calls > quota.calls).then(|| {
            let limit = quota.calls;
            let seconds = quota.per.as_secs_f64();
            let path = request.path();
            let text = format!(
                "The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:{seconds} second,uri:{path}"
            );
            gateway_error(429, "APIG.0308", &text)
        })
    }
}
