//! The account's quota: so many calls in each window of time, and 429 for the next.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::http::Request;
use crate::scm::gateway_error;
use crate::script::Reply;
use crate::{Account, Options};

/// The window of every access key: when it began, and how many calls it has seen.
#[derive(Debug, Default)]
pub(crate) struct Windows(Mutex<HashMap<String, (SystemTime, u32)>>);

impl Windows {
    /// Counts a call; the refusal if it is one too many. Windows follow each other from the first call on.
    pub(crate) fn count(&self, request: &Request, account: &Account, options: &Options) -> Option<Reply> {
        let quota = options.quota?;
        let now = (options.now)();
        let mut windows = self.0.lock().expect("no holder of this lock panics");
        let (began, calls) = windows.entry(account.access_key.clone()).or_insert((now, 0));
        if now.duration_since(*began).unwrap_or_default() >= quota.per {
            (*began, *calls) = (now, 0);
        }
        *calls += 1;
        (*calls > quota.calls).then(|| {
            let (limit, seconds, path) = (quota.calls, quota.per.as_secs_f64(), request.path());
            let text = format!(
                "The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:{seconds} second,uri:{path}"
            );
            gateway_error(429, "APIG.0308", &text)
        })
    }
}
