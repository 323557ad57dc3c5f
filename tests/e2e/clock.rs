//! Clock skew between the gateway and SCM.

use std::time::{Duration, SystemTime};

use scm_gateway::clock::Clock;
use tonic::Code;

use crate::harness::{Gateway, assert_status, emulator, environment, folder::Folder, sample};

#[tokio::test]
async fn clock_skew_costs_one_attempt_and_is_kept() {
    for minutes in [-20_i64, 20] {
        let emulator = emulator().await;
        let shift = Duration::from_secs(minutes.unsigned_abs() * 60);
        let time = move || if minutes < 0 { SystemTime::now() - shift } else { SystemTime::now() + shift };
        let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(time)).await;

        gateway.save(sample()).await.unwrap();

        assert_eq!((emulator.attempts(), emulator.rejections().len()), (2, 1), "{minutes}");
        gateway.save(sample()).await.unwrap();
        assert_eq!((emulator.attempts(), emulator.rejections().len()), (3, 1), "{minutes}");
        let seconds = gateway.metric::<f64>("scm_gateway_clock_skew_seconds").await;
        assert!((seconds + 60.0 * minutes as f64).abs() <= 2.0, "{seconds}");
    }
}

#[tokio::test]
async fn other_rejections_are_not_retried() {
    let emulator = emulator().await;
    let time = || SystemTime::now() - Duration::from_secs(300);
    let environment = environment(&emulator.endpoint(), &[("HUAWEICLOUD_SDK_SK", "wrong")]);
    let gateway = Gateway::start(environment, Clock::from_fn(time)).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn every_skewed_call_is_signed_again() {
    let emulator = emulator().await;
    let time = || SystemTime::now() - Duration::from_secs(1200);
    let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(time)).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(sample()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(emulator.rejections().len(), 1);
}

#[tokio::test]
async fn clock_skew_is_measured_per_endpoint() {
    use scm_emulator::{Account, Emulator, Options, Reply, Step};
    use scm_gateway::proto::SaveInfoRequest;
    let account = |name: &str| Account {
        access_key: format!("AK{name}"),
        secret_key: format!("SK{name}"),
        security_token: None,
        projects: vec![name.to_owned()],
        ..Account::sample()
    };
    let start = |name: &str| Emulator::start(Options { accounts: vec![account(name)], ..Options::default() });
    let good = start("good").await.unwrap();
    let odd = start("odd").await.unwrap();
    let folder = Folder::new();
    let file = |name: &str| folder.file(name, name);
    let variables = [
        ("SCM_GATEWAY__DEFAULT_PROJECT", "good".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__ID", "good".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__ENDPOINT", good.endpoint()),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", file("AKgood")),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", file("SKgood")),
        ("SCM_GATEWAY__PROJECTS__1__ID", "odd".to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__ENDPOINT", odd.endpoint()),
        ("SCM_GATEWAY__PROJECTS__1__AK_FILE", file("AKodd")),
        ("SCM_GATEWAY__PROJECTS__1__SK_FILE", file("SKodd")),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Gateway::start(environment(&good.endpoint(), &variables), Clock::system()).await;
    let rejection = r#"{"error_code":"APIG.0301","error_msg":"verify aksk signature fail, signature expired"}"#;
    odd.script(Step::Reply(Reply::json(401, rejection).header("Date", "Fri, 01 Jan 2100 00:00:00 GMT")));

    gateway.save(SaveInfoRequest { project_id: "odd".into(), ..sample() }).await.unwrap_err();

    gateway.save(sample()).await.unwrap();
    assert!(good.rejections().is_empty());
}
