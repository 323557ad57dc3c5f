//! The binary: arguments, exit codes, signals and log lines.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Output, Stdio},
};

use nix::sys::signal::{SigSet, Signal};
use scm_emulator::{Issuer, SAMPLE_PROJECT, SAMPLE_SECRET_KEY, Step, Then, Tls};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};
use tonic::Code;

use crate::harness::{
    METADATA_ENDPOINT, Refusing, assert_status, client, emulator, environment, environment_without_access_key,
    folder::Folder,
    in_flight, metadata_service,
    process::{Process, binary},
    sample, value_of,
};

async fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Asserts that a check found no problem.
fn assert_check_passed((code, text, errors): (i32, String, String)) {
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(text.lines().last(), Some("configuration OK"));
}

#[tokio::test]
async fn version_exits_with_0_and_a_bad_argument_with_78() {
    let run = |argument: &str| {
        let mut command = binary(&[]);
        command.arg(argument);
        output(command)
    };
    let (code, text, _) = run("--version").await;
    assert_eq!((code, text), (0, format!("scm-gateway {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, _, errors) = run("--cheque").await;
    assert_eq!(code, 78);
    assert!(errors.contains("--cheque"), "{errors}");
}

#[tokio::test]
async fn help_explains_start_signals_and_exit_codes() {
    let mut command = binary(&[]);
    command.arg("--help");
    let (code, help, errors) = output(command).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let expected = [
        (
            "minimal start",
            "export HUAWEICLOUD_SDK_AK=… HUAWEICLOUD_SDK_SK=… HUAWEICLOUD_SDK_PROJECT_ID=…\n  scm-gateway\n",
        ),
        ("configuration file", "--config <FILE>"),
        ("environment variables", "SCM_GATEWAY__SECTION__KEY"),
        ("sample with every key", "deploy/scm-gateway.toml"),
        ("check", "--check"),
        ("signals", "SIGHUP"),
        ("exit codes", "\n  78 "),
    ];
    for (topic, text) in expected {
        assert!(help.contains(text), "{topic} in:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "too wide for a terminal:\n{help}");

    // The addresses and the drain time are the defaults of the configuration.
    let mut command = binary(&[]);
    command.envs(environment("https://scm.example", &[])).env_remove("SCM_GATEWAY__SERVER__LISTEN");
    command.env_remove("SCM_GATEWAY__ADMIN__LISTEN").arg("--check");
    let (_, settings, _) = output(command).await;
    for key in ["server.listen", "admin.listen", "server.drain"] {
        let line =
            settings.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_else(|| panic!("{settings}"));
        let value = line.split('"').nth(1).unwrap();
        assert!(help.lines().any(|line| line.contains(value) && line.contains(key)), "{key} {value} in:\n{help}");
    }
}

#[tokio::test]
async fn check_prints_every_problem_and_exits_with_78() {
    for arguments in [vec!["--check"], vec![]] {
        let mut command = binary(&[
            ("HUAWEICLOUD_SDK_SK", "p1anted secret"),
            ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "soon"),
            ("SCM_GATEWAY__SERVER__LISEN", "127.0.0.1:0"),
        ]);
        command.args(arguments);
        let (code, _, errors) = output(command).await;
        assert_eq!(code, 78);
        for key in [
            "HUAWEICLOUD_SDK_AK",
            "HUAWEICLOUD_SDK_SK",
            "HUAWEICLOUD_SDK_PROJECT_ID",
            "SCM_GATEWAY__UPSTREAM__TIMEOUT",
            "SCM_GATEWAY__SERVER__LISEN",
        ] {
            assert!(errors.lines().any(|line| line.starts_with(&format!("scm-gateway: {key}"))), "{key} in:\n{errors}");
        }
        assert!(!errors.contains("p1anted"), "{errors}");
    }
}

#[tokio::test]
async fn check_of_a_valid_configuration_does_not_listen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut command = binary(&[]);
    command.envs(environment("https://scm.example", &[("SCM_GATEWAY__SERVER__LISTEN", &listen)])).arg("--check");
    assert_check_passed(output(command).await);
}

#[tokio::test]
async fn check_names_a_variable_that_removes_the_trust_roots() {
    let folder = Folder::new();
    let roots = folder.file("ca.pem", &Tls::generate().ca_pem());
    for (variable, value, code, found) in [
        ("SSL_CERT_FILE", "", 78, "scm-gateway: SSL_CERT_FILE: is empty, so there are no trust roots"),
        ("SSL_CERT_FILE", "/nowhere", 78, "scm-gateway: SSL_CERT_FILE: /nowhere cannot be read"),
        ("SSL_CERT_DIR", "/nowhere", 78, "scm-gateway: SSL_CERT_DIR: /nowhere cannot be read"),
        ("SSL_CERT_FILE", &roots, 0, ""),
    ] {
        let mut command = binary(&[(variable, value)]);
        command.envs(environment("https://scm.example", &[])).arg("--check");
        let (exit, _, errors) = output(command).await;
        assert!(exit == code && errors.starts_with(found), "{variable}={value}: {exit}, {errors}");
        assert_eq!(errors.lines().count(), usize::from(code != 0), "{errors}");
    }
}

#[tokio::test]
async fn check_prints_values_with_their_sources() {
    let mut command = binary(&[]);
    command.envs(environment("https://scm.example", &[])).arg("--check");
    let (code, text, _) = output(command).await;
    assert_eq!(code, 0);
    let line = text.lines().find(|line| line.starts_with("upstream.endpoint = ")).expect("the endpoint is printed");
    assert!(line.contains("\"https://scm.example\"") && line.ends_with("# SCM_GATEWAY__UPSTREAM__ENDPOINT"), "{line}");
    assert!(!text.contains(SAMPLE_SECRET_KEY), "{text}");
}

#[tokio::test]
async fn log_on_a_terminal_is_human_readable() {
    let mut command = Command::new("script"); // runs the gateway on a pseudo-terminal
    let shell_command = format!("echo $$; exec {}", crate::harness::process::binary_path().display());
    command.args(["--quiet", "--return", "--command", &shell_command, "/dev/null"]);
    command.env_clear().envs(environment("http://127.0.0.1:9", &[])).env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = lines.next_line().await.unwrap().unwrap();
    let line = lines.next_line().await.unwrap().unwrap();
    // SIGHUP has no effect, so the gateway outlives the terminal.
    assert!(std::process::Command::new("kill").arg(pid.trim()).status().unwrap().success());
    child.wait().await.unwrap();
    assert!(line.contains(" INFO ") && line.contains("serving") && !line.contains('{'), "{line:?}");
}

#[tokio::test]
async fn check_does_not_request_the_metadata_service() {
    let service = metadata_service(&Issuer::default()).await;
    let endpoint = service.endpoint();
    let environment = environment_without_access_key("https://scm.example", &[(METADATA_ENDPOINT, &endpoint)]);
    let mut command = binary(&[]);
    command.envs(environment).arg("--check");
    assert_check_passed(output(command).await);
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn check_shows_the_claims_of_a_token_without_sts() {
    const PAYLOAD: &str = "eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbInN0cyJdLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6c2NtOmdhdGV3YXkiLCJleHAiOjQxMDI0NDQ4MDB9";
    let folder = Folder::new();
    let sts = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sts.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", sts.local_addr().unwrap());
    let token = folder.file("token", &format!("e30.{PAYLOAD}.p1anted\n"));
    let variables = [
        ("HUAWEICLOUD_OIDC_PROVIDER_URN", "iam::account:oidcProvider:cluster"),
        ("HUAWEICLOUD_OIDC_AGENCY_URN", "iam::account:agency:scm"),
        ("HUAWEICLOUD_OIDC_TOKEN_FILE", &token),
        ("HUAWEICLOUD_SDK_STS_ENDPOINT", &endpoint),
    ];
    let environment = environment_without_access_key("https://scm.example", &variables);
    let mut command = binary(&[]);
    command.envs(environment).arg("--check");
    let (code, text, errors) = output(command).await;
    let line = format!(
        "project {SAMPLE_PROJECT} has credentials from oidc at {endpoint}; the token has iss \"https://issuer.example\", aud \
         \"sts\", sub \"system:serviceaccount:scm:gateway\", expires at 2100-01-01T00:00:00Z, "
    );
    assert!(text.lines().any(|shown| shown.starts_with(&line)), "{text}");
    assert!(!text.contains("p1anted") && !text.contains(PAYLOAD), "{text}");
    assert_check_passed((code, text, errors));
    assert_eq!(sts.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn check_does_not_connect_to_the_collector() {
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    collector.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut command = binary(&[]);
    command.envs(environment("https://scm.example", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])).arg("--check");
    assert_eq!(output(command).await.0, 0);
    assert_eq!(collector.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn check_warns_of_ignored_telemetry_variables() {
    let folder = Folder::new();
    let noise = folder.file("noise", "p1anted");
    let missing = folder.path("missing");
    let table = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", missing.as_str(), format!("{missing} cannot be read: ")),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", &noise, format!("{noise} holds no private key in PEM")),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", &noise, format!("{noise} holds no certificate in PEM")),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "p1anted", "expects gzip or none".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=p1anted,b", "expects name=value pairs".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=p1anted,b", "expects key=value pairs".to_owned()),
        ("OTEL_TRACES_EXPORTER", "p1anted", "expects otlp or none".to_owned()),
        ("OTEL_PROPAGATORS", "p1anted", "is ignored".to_owned()),
        ("OTEL_CONFIG_FILE", "p1anted", "is ignored".to_owned()),
    ];
    for (name, value, expected) in &table {
        let mut command = binary(&[]);
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example"), (name, value)];
        command.envs(environment("https://scm.example", &variables)).arg("--check");
        let (code, text, errors) = output(command).await;
        assert_eq!(code, 0, "{name}: {errors}");
        assert!(errors.starts_with(&format!("warning: {name}: {expected}")), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(!errors.contains("p1anted") && !text.contains("p1anted"), "{errors} {text}");
    }
}

#[tokio::test]
async fn syntax_error_names_the_line_but_not_its_text() {
    let folder = Folder::new();
    let path = folder.file("syntax.toml", "[server]\nlisten = p1anted\n");
    let mut command = binary(&[]);
    command.arg("--config").arg(&path).arg("--check");
    let (code, _, errors) = output(command).await;
    assert_eq!(code, 78);
    assert!(errors.contains("line 2") && !errors.contains("p1anted"), "{errors}");
}

#[tokio::test]
async fn address_in_use_is_reported_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    for (variable, key) in
        [("SCM_GATEWAY__SERVER__LISTEN", "server.listen"), ("SCM_GATEWAY__ADMIN__LISTEN", "admin.listen")]
    {
        let mut command = binary(&[]);
        command.envs(environment("https://scm.example", &[(variable, &listen)]));
        let (code, _, errors) = output(command).await;
        assert_eq!(code, 78);
        assert!(errors.contains(&format!("{key}: cannot listen on {listen}")), "{errors}");
    }
}

#[tokio::test]
async fn sigterm_finishes_calls_in_flight_and_exits_with_0() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[]).await;
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let call = in_flight(&emulator, Step::HangThenServe(gate.clone()), client(&process.address).await).await;

    process.signal("TERM");
    process.line("draining").await;
    gate.notify_one();

    call.await.unwrap().unwrap();
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    assert!(log.last().unwrap().contains("stopped"), "{log:?}");
}

#[tokio::test]
async fn connections_spread_over_workers_and_all_drain() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__WORKER_THREADS", "3")]).await;
    let busy = async |worker: usize| -> f64 {
        let series = format!("scm_gateway_runtime_worker_busy_duration_seconds_total{{worker=\"{worker}\"");
        value_of(&process.metrics().await, &series)
    };
    let mut first = client(&process.address).await; // a connection of the last worker
    first.save_info(sample()).await.unwrap();
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let mut calls = Vec::new();
    for worker in [1, 0, 2] {
        let before = busy(worker).await;
        let step = Step::HangThenServe(gate.clone());
        calls.push(in_flight(&emulator, step, client(&process.address).await).await);
        while busy(worker).await <= before {}
    }

    process.signal("TERM");
    process.line("draining").await;
    for call in calls {
        gate.notify_one();
        call.await.unwrap().unwrap();
    }
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn drain_is_bounded() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__DRAIN", "200ms")]).await;
    let call = in_flight(&emulator, Step::Hang, client(&process.address).await).await;
    process.signal("INT");
    process.line("draining").await;
    assert_status(&call.await.unwrap().unwrap_err(), tonic::Code::Unavailable, "SHUTTING_DOWN", Some(1));
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn second_signal_exits_at_once() {
    for (first, second, code) in [("TERM", "TERM", 128 + 15), ("TERM", "INT", 128 + 2), ("INT", "TERM", 128 + 15)] {
        let emulator = emulator().await;
        let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
        let call = in_flight(&emulator, Step::Hang, client(&process.address).await).await;
        process.signal(first);
        process.line("draining").await;
        process.signal(second);
        assert_eq!(process.end().await.0, Some(code), "{first}, {second}");
        call.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn sighup_has_no_effect() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    process.signal("HUP");
    let mut client = client(&process.address).await;
    client.save_info(sample()).await.unwrap();
    process.signal("TERM");
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn sighup_does_not_count_as_second_signal() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[]).await;
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let call = in_flight(&emulator, Step::HangThenServe(gate.clone()), client(&process.address).await).await;
    process.signal("TERM");
    process.line("draining").await;
    process.signal("HUP");
    gate.notify_one();
    call.await.unwrap().unwrap();
    assert_eq!(process.end().await.0, Some(0));
}

/// Some supervisors start a program with signals blocked or ignored, and the program inherits that.
#[tokio::test]
async fn signals_that_the_parent_blocks_or_ignores_are_handled() {
    let emulator = emulator().await;
    let handled = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    for (blocked, ignored) in [(true, false), (false, true), (true, true)] {
        for signal in ["TERM", "INT"] {
            if blocked {
                handled.thread_block().unwrap();
            }
            let script = if ignored { "trap '' TERM INT HUP" } else { "true" };
            let mut process = Process::after(script, &emulator.endpoint(), &[]).await;
            handled.thread_unblock().unwrap();
            let status = std::fs::read_to_string(process.proc("status")).unwrap();
            let at = format!("{blocked} {ignored} {signal}: {status}");
            let mask = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap()
            };
            let bits = handled.iter().map(|signal| 1 << (signal as u64 - 1)).sum::<u64>();
            assert_eq!((mask("SigBlk:") & bits, mask("SigIgn:") & bits), (0, 0), "{at}");
            process.signal("HUP");
            process.signal(signal);
            process.line("draining").await;
            assert_eq!(process.end().await.0, Some(0), "{at}");
        }
    }
}

#[tokio::test]
async fn hanging_collector_delays_neither_calls_nor_exit() {
    let emulator = emulator().await;
    // The kernel accepts connections, and nobody serves them.
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    for protocol in ["grpc", "http/protobuf"] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
            ("SCM_GATEWAY__SERVER__DRAIN", "2s"),
        ];
        let process = Process::start(&emulator.endpoint(), &variables).await;
        let mut client = client(&process.address).await;
        for _ in 0..100 {
            client.save_info(sample()).await.unwrap();
        }
        process.signal("TERM");
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), process.end()).await;
        assert_eq!(ended.expect("the gateway exits within its drain time").0, Some(0), "{protocol}");
    }
}

#[tokio::test]
async fn proxy_variables_are_ignored() {
    let emulator = emulator().await;
    let dead = "http://127.0.0.1:1";
    let variables = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let process = Process::start(&emulator.endpoint(), &variables.map(|name| (name, dead))).await;
    client(&process.address).await.save_info(sample()).await.unwrap();
}

#[tokio::test]
async fn unread_log_drops_and_counts_lines() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[("RUST_LOG", "trace")]).await;
    assert_eq!(process.metric("scm_gateway_log_lines_dropped_total").await, 0);
    let invalid = scm_gateway::proto::SaveInfoRequest { info: None, ..sample() };
    let mut calls = Vec::new();
    let client = client(&process.address).await;
    // Far more lines than the pipe and the queue hold.
    for _ in 0..20 {
        let mut client = client.clone();
        let invalid = invalid.clone();
        calls.push(tokio::spawn(async move {
            for _ in 0..450 {
                client.save_info(invalid.clone()).await.unwrap_err();
            }
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    client.clone().save_info(sample()).await.unwrap();
    let dropped = process.metric("scm_gateway_log_lines_dropped_total").await;
    assert!(dropped > 0);
    client.clone().save_info(invalid).await.unwrap_err();
    assert!(process.metric("scm_gateway_log_lines_dropped_total").await > dropped, "lines are still dropped");
    process.signal("TERM");
    assert_eq!(process.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn closed_log_stops_neither_calls_nor_exit() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[]).await;
    process.close_log();
    let mut client = client(&process.address).await;
    let invalid = scm_gateway::proto::SaveInfoRequest { info: None, ..sample() };
    for _ in 0..3 {
        client.save_info(invalid.clone()).await.unwrap_err();
        client.save_info(sample()).await.unwrap();
    }
    let counted = async { while process.metric("scm_gateway_log_lines_dropped_total").await < 6 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("each lost line is counted");
    process.signal("TERM");
    assert_eq!(process.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn failed_call_is_one_line_with_its_details() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    client(&process.address).await.save_info(sample()).await.unwrap_err();
    let line = process.line("call failed").await;
    assert_eq!((line["level"].as_str(), line["reason"].as_str()), (Some("ERROR"), Some("UPSTREAM_CREDENTIALS")));
    assert_eq!(line["rpc"], "huaweicloud.scm.v1.CertificateService/SaveInfo");
    assert_eq!(line["status"], "INTERNAL");
    assert_eq!((line["http_status"].as_u64(), line["attempts"].as_u64()), (Some(401), Some(1)));
    assert_eq!((&line["upstream_code"], &line["project_id"]), (&"APIG.0301".into(), &SAMPLE_PROJECT.into()));
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    process.signal("TERM");
    let (_, log) = process.end().await;
    assert_eq!(log.iter().filter(|line| line.contains("UPSTREAM_CREDENTIALS")).count(), 1, "{log:?}");
}

#[tokio::test]
async fn log_names_the_cause_of_a_connection_failure() {
    let refusing = Refusing::new();
    let options = |tls| scm_emulator::Options { tls, ..scm_emulator::Options::default() };
    let plain = scm_emulator::Emulator::start(options(None)).await.unwrap();
    let untrusted = scm_emulator::Emulator::start(options(Some(Tls::generate()))).await.unwrap();
    plain.scripts((0..9).map(|_| Step::Reset));
    for (endpoint, cause) in [
        (refusing.endpoint(), "connection refused"),
        ("https://scm.invalid".to_owned(), "name not resolved"),
        (plain.endpoint(), "connection reset"),
        (plain.endpoint().replace("http://", "https://"), "peer does not speak TLS"),
        (untrusted.endpoint(), "unknown certificate issuer"),
    ] {
        let mut process = Process::start(&endpoint, &[]).await;
        client(&process.address).await.save_info(sample()).await.unwrap_err();
        assert_eq!(process.line("call failed").await["cause"], cause, "{endpoint}");
    }
}

#[tokio::test]
async fn log_names_what_a_timed_out_call_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let emulator = emulator().await;
    emulator.script(Step::Hang);
    emulator.script(Step::RawThen(b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{".to_vec(), Then::Hang));
    for (endpoint, cause, attempts) in [
        (format!("https://{}", silent.local_addr().unwrap()), "no connection in time", None),
        (emulator.endpoint(), "no response in time", Some(1)),
        (emulator.endpoint(), "no response in time", Some(1)),
    ] {
        let mut process = Process::start(&endpoint, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "500ms")]).await;
        let status = client(&process.address).await.save_info(sample()).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE", attempts);
        assert_eq!(process.line("call failed").await["cause"], cause, "{endpoint}");
    }
    assert_eq!(emulator.attempts(), 2);
}

/// The sample in `deploy/` has every key.
#[tokio::test]
async fn sample_configuration_passes_the_check() {
    let sample: PathBuf = [env!("CARGO_MANIFEST_DIR"), "deploy", "scm-gateway.toml"].iter().collect();
    let mut command = binary(&[]);
    command
        .env("HUAWEICLOUD_SDK_AK", "AK")
        .env("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY)
        .env("HUAWEICLOUD_SDK_PROJECT_ID", "p")
        .arg("--config")
        .arg(sample)
        .arg("--check");
    assert_eq!(output(command).await.0, 0);
}

#[tokio::test]
async fn health_requests_the_configured_admin_address() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let port = process.admin.rsplit(':').next().unwrap();
    // The health check needs neither credentials nor a project.
    let check_health = |admin: String| async move {
        let mut command = binary(&[]);
        command.env("SCM_GATEWAY__ADMIN__LISTEN", &admin).arg("--health");
        output(command).await
    };
    assert_eq!(check_health(process.admin.clone()).await, (0, String::new(), String::new()));
    assert_eq!(check_health(format!("0.0.0.0:{port}")).await.0, 0, "a wildcard address is requested on loopback");
    let admin = process.admin.clone();
    process.signal("KILL");
    process.end().await;
    let (code, _, errors) = check_health(admin).await;
    assert_eq!(code, 1);
    assert!(errors.starts_with("scm-gateway: admin.listen: "), "{errors}");
}

#[tokio::test]
async fn a_crash_leaves_no_core_file() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let script = format!("cd {}; ulimit -c $(ulimit -H -c)", folder.path(""));
    let mut process = Process::after(&script, &emulator.endpoint(), &[]).await;
    let limits = std::fs::read_to_string(process.proc("limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    process.signal("ABRT");
    let status = process.child.wait().await.unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::SIGABRT as i32), false));
}
