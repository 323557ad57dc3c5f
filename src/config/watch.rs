//! `[watch]`: the polls of watched certificates.

use std::time::Duration;

use super::reader::{Section, values};
use super::{millis, secs};

/// The polls of watched certificates.
#[derive(Debug, Clone)]
pub struct Watch {
    /// How often SCM is asked for a watched certificate, give or take a tenth; 30 s by default.
    pub interval: Duration,
    /// Open watches over all connections; 1,000 by default.
    pub max: usize,
    /// Open watches of one identified caller: half of `max`, all with a single caller.
    pub max_per_caller: usize,
}

/// Reads the section. `callers` is the number of listed callers; zero means any number.
pub(super) fn read(section: &mut Section<'_>, callers: usize) -> Watch {
    let interval = section.take("interval", "30s", values::duration(millis(100)..=secs(3600)));
    let max = section.take("max", "1000", values::integer(1..=100_000)) as usize;
    Watch { interval, max, max_per_caller: if callers == 1 { max } else { max.div_ceil(2) } }
}
