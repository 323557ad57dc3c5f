//! A clock that is off.

use std::time::{Duration, SystemTime};

use scm_gateway::clock::Clock;
use tonic::Code;

use crate::harness::{Gateway, assert_status, emulator, environment, sample};

#[tokio::test]
async fn a_clock_that_is_off_costs_one_attempt_and_the_offset_is_kept() {
    for minutes in [-20_i64, 20] {
        let emulator = emulator().await;
        let shift = Duration::from_secs(minutes.unsigned_abs() * 60);
        let time = move || if minutes < 0 { SystemTime::now() - shift } else { SystemTime::now() + shift };
        let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(time)).await;

        gateway.save(sample()).await.unwrap();

        assert_eq!((emulator.attempts(), emulator.refusals().len()), (2, 1), "{minutes}");
        gateway.save(sample()).await.unwrap();
        assert_eq!((emulator.attempts(), emulator.refusals().len()), (3, 1), "{minutes}");
        let (_, metrics) = gateway.admin("/metrics").await;
        let skew = metrics.lines().find(|line| line.starts_with("scm_gateway_clock_skew_seconds")).unwrap();
        let seconds: f64 = skew.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((seconds + 60.0 * minutes as f64).abs() <= 2.0, "{skew}");
    }
}

#[tokio::test]
async fn a_refusal_for_any_other_reason_is_never_tried_again() {
    let emulator = emulator().await;
    let time = || SystemTime::now() - Duration::from_secs(300);
    let environment = environment(&emulator.endpoint(), &[("HUAWEICLOUD_SDK_SK", "wrong")]);
    let gateway = Gateway::start(environment, Clock::from_fn(time)).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
    assert_eq!(emulator.attempts(), 1);
}
