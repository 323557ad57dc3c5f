//! Tests of `[watch]`.

use super::*;

#[test]
fn a_single_caller_may_have_all_watches() {
    let limits = |callers: usize| {
        let entry = "[[callers]]\nidentity = \"a\"\nmethods = [\"read\"]\nprojects = [\"*\"]\n";
        let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__WATCH__MAX", "7")];
        let watch = valid(&entry.repeat(callers), &with_credentials(&variables)).watch;
        (watch.max, watch.max_per_caller)
    };
    assert_eq!([limits(0), limits(1), limits(2)], [(7, 4), (7, 7), (7, 4)]);
}

#[test]
fn the_interval_has_a_minimum() {
    let problem = problem("[watch]\ninterval = \"99ms\"");
    assert_eq!(problem, "watch.interval: expects a duration such as \"10s\", from 100ms to 1h");
}
