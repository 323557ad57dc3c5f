//! `scm-gateway call`: the client in the binary, over real sockets.

use std::process::{Output, Stdio};

use prost_reflect::{DynamicMessage, SerializeOptions};
use scm_emulator::{Emulator, Options, Reply, Step};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

use crate::harness::{
    CERT, Gateway, Refusing, emulator,
    folder::Folder,
    otlp_sink::Sink,
    pki::{Authority, uri},
    process::{Process, binary},
    rpc::{self, rpcs},
    samples::{self, Filling},
};

const SAVE: &str = r#"{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN",
    "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
    "agree_privacy_protection": true}}"#;

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";

/// How a call ended: exit code, standard output and standard error.
type Ended = (i32, String, String);

/// Returns the command of a call to the gateway at this address.
fn command(address: &str, arguments: &[&str]) -> Command {
    let mut command = binary(&[("SCM_GATEWAY__SERVER__LISTEN", address)]);
    command.arg("call").args(arguments);
    command
}

async fn ended(mut command: Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

async fn call(address: &str, arguments: &[&str]) -> Ended {
    ended(command(address, arguments)).await
}

/// Makes a call with this standard input.
async fn call_with_input(address: &str, arguments: &[&str], input: &str) -> Ended {
    let mut command = command(address, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input.as_bytes()).await; // a rejected input is not read to its end
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[track_caller]
fn assert_saved((code, text, errors): Ended) {
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");
    assert_eq!(text, "{\n  \"requestInfo\": \"success\"\n}\n");
}

/// Starts an emulator that answers about the certificate with these statuses, one after the other, and then the last.
async fn emulator_with(statuses: &[&str]) -> Emulator {
    let show = |status: &&str| Step::Reply(Reply::json(200, &json!({"id": CERT, "status": status}).to_string()));
    let (last, first) = statuses.split_last().unwrap();
    let steps = vec![(CERT.to_owned(), show(last))];
    let emulator = Emulator::start(Options { steps, ..Options::default() }).await.unwrap();
    emulator.scripts(first.iter().map(show));
    emulator
}

#[tokio::test]
async fn the_address_comes_from_configuration_or_option() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let address = process.address.as_str();
    let port = address.rsplit(':').next().unwrap();
    let folder = Folder::new();
    let file = folder.file("scm-gateway.toml", &format!("[server]\nlisten = \"{address}\"\n[unrelated]\n"));
    assert_saved(call(address, &["SaveInfo", "-d", SAVE]).await);
    assert_saved(call(&format!("0.0.0.0:{port}"), &["CertificateService/SaveInfo", "--data", SAVE]).await);
    for arguments in [
        vec!["--config", &file, "call", "SaveInfo", "-d", SAVE],
        vec!["call", "SaveInfo", "-d", SAVE, "--config", &file],
        vec!["call", "huaweicloud.scm.v1.CertificateService/SaveInfo", "-d", SAVE, "--address", address],
        vec!["call", "SaveInfo", "-d", SAVE, "--address", &format!("localhost:{port}")],
    ] {
        let mut command = binary(&[]);
        command.args(arguments);
        assert_saved(ended(command).await);
    }
    assert_eq!(emulator.attempts(), 6);
}

#[tokio::test]
async fn the_request_comes_from_option_or_standard_input() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let address = process.address.as_str();
    assert_saved(call_with_input(address, &["SaveInfo", "-d", "@-"], SAVE).await);
    let camel_case = SAVE.replace("cert_id", "certId").replace("applicant_n", "applicantN");
    assert_saved(call_with_input(address, &["SaveInfo", "-d", "@-"], &camel_case).await);
    assert_eq!(emulator.attempts(), 2);
    // Without a request, the message is empty.
    let (code, text, errors) = call(address, &["SaveInfo"]).await;
    assert_eq!((code, text.as_str()), (83, ""));
    assert!(errors.contains("  BadRequest  cert_id: must be "), "{errors}");
    let (code, _, errors) = call_with_input(address, &["SaveInfo", "-d", "@-"], &" ".repeat(1024 * 1024 + 1)).await;
    assert_eq!((code, errors.as_str()), (78, "scm-gateway: -d: standard input has more than 1 MiB\n"));
    let (code, ..) = call_with_input(address, &["SaveInfo", "-d", "@-"], &(" ".repeat(1024 * 1024 - 2) + "{}")).await;
    assert_eq!(code, 83, "1 MiB is read");
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn a_failure_shows_status_and_details() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let reply = |status, code| {
        let reply = Reply::json(status, &json!({"error_code": code, "error_msg": "text"}).to_string());
        reply.header("X-Request-Id", "b6b1b0e4")
    };
    emulator.script_for("scs0000000000404", Step::Reply(reply(400, "SCM.0008")));
    emulator.script_for("scs0000000000429", Step::Reply(reply(429, "APIG.0308").header("Retry-After", "1")));
    let rule = "cert_id: must be 1 to 64 characters out of A-Z, a-z, 0-9, '-' and '_'";
    for (certificate, code, expected) in [
        (
            "scs/1",
            83,
            format!(
                "INVALID_ARGUMENT: invalid request: {rule}\n  ErrorInfo   scm-gateway / INVALID_REQUEST\n  BadRequest  {rule}\n"
            ),
        ),
        (
            "scs0000000000404",
            85,
            "NOT_FOUND: no such certificate in this project, or nothing saved for it: check cert_id and project_id \
             (SCM.0008)\n  ErrorInfo   scm-gateway / CERTIFICATE_NOT_FOUND\n              attempts: 1\n              \
             http_status: 400\n              upstream_code: SCM.0008\n              upstream_request_id: b6b1b0e4\n"
                .to_owned(),
        ),
        (
            "scs0000000000429",
            88,
            "RESOURCE_EXHAUSTED: SCM throttles the account: retry after the delay in RetryInfo, or with backoff \
             (APIG.0308)\n  ErrorInfo   scm-gateway / UPSTREAM_THROTTLED\n"
                .to_owned(),
        ),
    ] {
        let request = json!({"cert_id": certificate}).to_string();
        let (found, text, errors) = call(&process.address, &["ReadInfo", "-d", &request]).await;
        assert_eq!((found, text.as_str()), (code, ""), "{certificate}: {errors}");
        assert!(errors.starts_with(&expected), "{errors}");
        assert_eq!(errors.contains("\n  RetryInfo   1s\n"), code == 88, "{errors}");
    }
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_78_and_calls_nothing() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let folder = Folder::new();
    let noise = folder.file("noise", "p1anted");
    let long = format!("name: p1anted{}", "x".repeat(16 * 1024));
    for (arguments, expected) in [
        (vec!["SavInfo"], "scm-gateway: METHOD: unknown method; similar ones are SaveInfo"),
        (vec!["SaveInfo", "-d", "{p1anted"], "scm-gateway: -d: is not JSON: "),
        (
            vec!["SaveInfo", "-d", r#"{"info": {"applicant_name": ["p1anted"]}}"#],
            "scm-gateway: -d: info.applicant_name: expects text in quotes",
        ),
        (
            vec!["SaveInfo", "-d", "@p1anted"],
            "scm-gateway: -d: expects JSON, or @- to read standard input: -d @- <FILE",
        ),
        (vec!["SaveInfo", "-H", "p1anted"], "scm-gateway: -H: expects NAME: VALUE"),
        (vec!["SaveInfo", "-H", "p1 anted: 1"], "scm-gateway: -H: expects a metadata key before the colon"),
        (vec!["SaveInfo", "-H", "name: \u{7}p1anted"], "scm-gateway: -H: name: expects printable ASCII"),
        (vec!["SaveInfo", "-H", "name: \u{e9}p1anted"], "scm-gateway: -H: name: expects printable ASCII"),
        (vec!["SaveInfo", "-H", "Transfer-Encoding: p1anted"], "scm-gateway: -H: transfer-encoding cannot be set"),
        (vec!["SaveInfo", "-H", "Content-Length: p1anted"], "scm-gateway: -H: content-length cannot be set"),
        (vec!["SaveInfo", "-H", &long], "scm-gateway: -H: has more than 16 KiB\n"),
        (vec!["SaveInfo", "-H", "grpc-timeout: 1S"], "scm-gateway: -H: grpc-timeout cannot be set"),
        (vec!["SaveInfo", "--address", "p1anted"], "scm-gateway: --address: expects HOST:PORT, or unix: and a path"),
        (
            vec!["SaveInfo", "--timeout", "0s"],
            "error: invalid value '…' for '--timeout <DURATION>': expects a duration such as 5s, up to 10000h",
        ),
        (vec!["SaveInfo", "--cacert", "/nowhere"], "scm-gateway: --cacert: /nowhere cannot be read: "),
        (vec!["SaveInfo", "--cert", &noise, "--key", &noise], "scm-gateway: --cert: /"),
        (vec!["SaveInfo", "--cert", &noise], "error: the following required arguments were not provided:\n  --key"),
        (vec!["SaveInfo", "--tls", "--servername", "p1anted name"], "scm-gateway: TLS: "),
        (vec!["SaveInfo", "--config", "/nowhere"], "scm-gateway: /nowhere: cannot be read: "),
        (vec!["SaveInfo", "--adress", "a:1"], "error: unexpected argument '--adress' found\n\n  tip: a similar"),
        (vec!["SaveInfo", "--tls", "--plaintext"], "error: the argument '--tls' cannot be used with '--plaintext'"),
        (vec!["--list", "SaveInfo"], "error: the argument '--list' cannot be used with '[METHOD]'"),
        (vec!["--list", "--trace"], "error: the argument '--list' cannot be used with '--trace'"),
        (vec![], "error: the following required arguments were not provided:\n  <METHOD>"),
    ] {
        let (code, text, errors) = call(&process.address, &arguments).await;
        assert_eq!((code, text.as_str()), (78, ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with(expected) && !errors.contains("p1anted"), "{arguments:?}: {errors}");
    }
    let (code, _, errors) = call("p1anted", &["SaveInfo"]).await;
    assert!(code == 78 && errors.starts_with("scm-gateway: SCM_GATEWAY__SERVER__LISTEN: expects"), "{errors}");
    let mut with_switch = binary(&[]);
    with_switch.args(["--check", "call", "SaveInfo"]);
    assert_eq!(ended(with_switch).await.0, 78);
    assert_eq!(emulator.attempts(), 0);
    process.signal("TERM");
    let (_, log) = process.end().await;
    assert!(!log.iter().any(|line| line.contains("SaveInfo")), "{log:?}");
}

#[tokio::test]
async fn without_ca_certificates_of_the_system_cacert_is_named() {
    let variables = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")];
    let mut command = binary(&variables);
    command.args(["call", "SaveInfo", "--tls"]);
    let (code, text, errors) = ended(command).await;
    assert_eq!((code, text.as_str()), (78, ""), "{errors}");
    assert!(errors.starts_with("scm-gateway: TLS (--cacert sets the CA of the gateway's certificate): "), "{errors}");
}

#[tokio::test]
async fn an_error_of_the_command_line_shows_no_value() {
    let pem = "-----BEGIN PRIVATE KEY-----\np1anted==\n-----END PRIVATE KEY-----\n";
    let json = format!("{{\"private_key\": {pem:?}}}");
    let (key_option, timeout_option) = (format!("--key={pem}"), format!("--timeout={pem}"));
    for (arguments, expected) in [
        (vec!["call", "SaveInfo", &json], "error: unexpected argument '…' found\n\nUsage: "),
        (vec!["call", "SaveInfo", pem], "error: unexpected argument '…' found\n\nUsage: "),
        (vec!["call", "SaveInfo", "--p1anted"], "error: unexpected argument '…' found\n\n"),
        (vec!["call", "SaveInfo", "-d", pem], "scm-gateway: -d: is not JSON: "),
        (vec!["call", "SaveInfo", "-d", "{}", &json], "error: unexpected argument '…' found\n\nUsage: "),
        (vec!["call", "SaveInfo", "-H", pem], "error: unexpected argument '…' found\n\nUsage: "),
        (vec!["call", "SaveInfo", "--cert", "a", &key_option], "scm-gateway: --"),
        (vec!["call", "SaveInfo", &timeout_option], "error: invalid value '…' for '--timeout <DURATION>': expects"),
        (vec!["call", "SaveInfo", "--timeout", &json], "error: invalid value '…' for '--timeout <DURATION>': expects"),
        (vec!["call", &json], "scm-gateway: METHOD: unknown method"),
        (vec![json.as_str()], "error: un"),
        (vec![pem], "error: unexpected argument '…' found\n\nUsage: "),
        (vec!["--check", &json], "error: un"),
    ] {
        let mut command = binary(&[]);
        command.args(&arguments);
        let (code, text, errors) = ended(command).await;
        assert_eq!((code, text.as_str()), (78, ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with(expected) && !errors.contains("p1anted"), "{arguments:?}: {errors}");
        assert!(!errors.contains("BEGIN") && !errors.contains("private_key"), "{arguments:?}: {errors}");
    }
}

/// Makes a call, records the start of what the listener receives, and then closes the connection.
async fn recorded(listen: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Vec<u8>, Ended) {
    let server = tokio::net::TcpListener::bind(listen).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut command = binary(variables);
    command.args(["call", "SaveInfo", "-d", SAVE, "--timeout", "30s"]);
    command.args(arguments.iter().map(|argument| argument.replace("PORT", &port.to_string())));
    let record = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut received = vec![0; 64 * 1024];
        let mut length = stream.read(&mut received).await.unwrap();
        // Without TLS, a client sends its request before the server has responded.
        while received.starts_with(b"PRI * HTTP/2.0") && !contains(&received, b"www.xzz.com") {
            let read = stream.read(&mut received[length..]).await.unwrap();
            assert!(read > 0, "{:?}", &received[..length]);
            length += read;
        }
        received.truncate(length);
        received
    };
    tokio::join!(record, ended(command))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_request_leaves_in_plain_text_only_if_asked_to() {
    const TLS_HANDSHAKE: u8 = 0x16;
    let configured = [
        ("SCM_GATEWAY__SERVER__TLS__CERT_FILE", "/nowhere.crt"),
        ("SCM_GATEWAY__SERVER__TLS__KEY_FILE", "/nowhere.key"),
    ];
    for (listen, options, variables, is_plain) in [
        ("127.0.0.1:0", &["--address", "127.0.0.1:PORT"][..], &[][..], true),
        ("127.0.0.1:0", &["--address", "127.0.0.1:PORT"], &configured, false),
        ("127.0.0.1:0", &["--address", "127.0.0.1:PORT", "--plaintext"], &configured, true),
        ("127.0.0.1:0", &["--address", "127.0.0.1:PORT", "--tls"], &[], false),
        // A host that is no name of loopback, but reaches it.
        ("127.0.0.1:0", &["--address", "0.0.0.0:PORT"], &[], false),
        ("127.0.0.1:0", &["--address", "0.0.0.0:PORT", "--plaintext"], &[], true),
    ] {
        let (received, (code, _, errors)) = recorded(listen, options, variables).await;
        assert_eq!(contains(&received, b"www.xzz.com"), is_plain, "{options:?}");
        assert_eq!(received[0] == TLS_HANDSHAKE, !is_plain, "{options:?}");
        assert_eq!(code, 94, "{errors}");
        let hint = if is_plain {
            "(for a listener with TLS, use --tls)"
        } else {
            "(for a listener without TLS, use --plaintext)"
        };
        assert!(errors.contains(hint), "{options:?}: {errors}");
    }
}

#[tokio::test]
async fn a_listener_without_tls_is_named_in_the_failure() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let address = gateway.addresses.server.replace("127.0.0.1", "0.0.0.0");
    let save = ["SaveInfo", "-d", SAVE, "--address", &address];
    let (code, _, errors) = call("127.0.0.1:1", &save).await;
    let expected = format!(
        "UNAVAILABLE: no connection to {address} (for a listener without TLS, use --plaintext): transport error: \
         received corrupt message of type InvalidContentType\n"
    );
    assert_eq!((code, errors), (94, expected));
    assert_saved(call("127.0.0.1:1", &[&save[..], &["--plaintext"]].concat()).await);
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let authority = Authority::new();
    let folder = Folder::new();
    let mut files = authority.variables(&folder, Some(&authority.pem));
    files.extend([
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", ORDERS.to_owned()),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo".to_owned()),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*".to_owned()),
    ]);
    let variables: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let client = authority.client(vec![uri(ORDERS)]);
    let (certificate, key) = (folder.file("client.crt", &client.certificate), folder.file("client.key", &client.key));
    let ca = folder.file("roots.crt", &authority.pem);
    let other = Authority::new();
    let other_ca = folder.file("other.crt", &other.pem);
    let foreign = other.client(vec![uri(ORDERS)]);
    let foreign_key = folder.file("foreign.key", &foreign.key);
    let foreign = folder.file("foreign.crt", &foreign.certificate);
    let port = process.address.rsplit(':').next().unwrap();
    let address = format!("localhost:{port}");
    let identity = ["--cert", &certificate, "--key", &key];

    let save = ["SaveInfo", "-d", SAVE];
    let by_option = ["--address", &address, "--cacert", &ca];
    assert_saved(call("127.0.0.1:1", &[&save[..], &by_option, &identity].concat()).await);
    // The configuration says that the listener has TLS.
    let mut configured = command(&process.address, &save);
    configured.envs(variables.iter().copied()).args(["--cacert", &ca, "--servername", "localhost"]).args(identity);
    assert_saved(ended(configured).await);
    assert_eq!(emulator.attempts(), 2);

    for (arguments, code, expected) in [
        (by_option.to_vec(), 96, "UNAUTHENTICATED: no caller identity"),
        (
            vec!["--address", &address, "--cacert", &other_ca],
            94,
            "(--cacert sets the CA of the gateway's certificate): ",
        ),
        (vec!["--address", &address, "--tls"], 94, "(--cacert sets the CA of the gateway's certificate): "),
        (
            vec!["--address", &address, "--cacert", &ca, "--servername", "x"],
            94,
            "(--servername sets the name in the gateway's certificate): ",
        ),
        (
            [&by_option[..], &["--cert", &foreign, "--key", &foreign_key]].concat(),
            94,
            "perhaps the gateway rejected the client certificate): ",
        ),
    ] {
        let (found, _, errors) = call("127.0.0.1:1", &[&save[..], &arguments].concat()).await;
        assert!(found == code && errors.contains(expected), "{arguments:?}: {found} {errors}");
        assert!(!errors.contains("--plaintext") && errors.lines().all(|line| !line.contains("::")), "{errors}");
    }
    let (code, _, errors) = call("127.0.0.1:1", &[&save[..], &["--address", &address]].concat()).await;
    let expected = format!(
        "UNAVAILABLE: the connection to {address} failed; the request may have been carried out (for a listener with TLS, use --tls): "
    );
    let causes = errors.strip_prefix(&expected).unwrap_or_else(|| panic!("{errors}"));
    assert!(code == 94 && causes.starts_with("transport error: ") && errors.lines().count() == 1, "{code} {errors}");
    assert!(!causes.contains("code:") && !causes.contains("::"), "Debug output: {errors}");
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn a_unix_socket_is_called() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let listen = format!("unix:{}", folder.path("a socket"));
    let _gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__LISTEN", &listen)]).await;
    assert_saved(call(&listen, &["SaveInfo", "-d", SAVE]).await);
    assert_saved(call("127.0.0.1:1", &["SaveInfo", "-d", SAVE, "--address", &listen]).await);
    // With TLS, the name is localhost by default.
    let authority = Authority::new();
    let listen = format!("unix:{}", folder.path("tls"));
    let mut files = authority.variables(&folder, None);
    files.push(("SCM_GATEWAY__SERVER__LISTEN", listen.clone()));
    let variables: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let _gateway_with_tls = Gateway::with(&emulator, &variables).await;
    let ca = folder.file("roots.crt", &authority.pem);
    assert_saved(call(&listen, &["SaveInfo", "-d", SAVE, "--cacert", &ca]).await);
    let missing = format!("unix:{}", folder.path("missing"));
    let (code, _, errors) = call(&missing, &["SaveInfo", "-d", SAVE]).await;
    assert!(code == 94 && errors.starts_with(&format!("UNAVAILABLE: no connection to {missing}: ")), "{errors}");
    assert!(errors.contains("No such file or directory"), "{errors}");
}

#[tokio::test]
async fn a_stream_prints_each_response_until_its_end() {
    let emulator = emulator_with(&["PAID", "CHECKING_ORG", "ISSUED"]).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__WATCH__INTERVAL", "100ms")]).await;
    let request = json!({"cert_id": CERT}).to_string();
    let (code, text, errors) = call(&gateway.addresses.server, &["WatchCertificate", "-d", &request]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
    let statuses: Vec<_> =
        documents.iter().map(|document| document["certificate"]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["PAID", "CHECKING_ORG", "ISSUED"]);
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_a_stream() {
    let emulator = emulator_with(&["PAID"]).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "300ms")]).await;
    let address = gateway.addresses.server.as_str();
    let request = json!({"cert_id": CERT}).to_string();
    let (code, text, errors) = call(address, &["WatchCertificate", "-d", &request, "--timeout", "3s"]).await;
    assert!(code == 84 && text.contains("PAID") && errors.starts_with("DEADLINE_EXCEEDED: "), "{text}{errors}");
    // The gateway's own limit is shorter.
    emulator.script_for("scs0000000000002", Step::Hang);
    let hanging = json!({"cert_id": "scs0000000000002"}).to_string();
    let (code, _, errors) = call(address, &["ReadInfo", "-d", &hanging, "--timeout", "30s"]).await;
    assert_eq!(code, 84, "{errors}");
    assert!(errors.contains("\n  ErrorInfo   scm-gateway / DEADLINE\n"), "{errors}");
    // Without an answer of the gateway, the client ends the call itself.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, _, errors) = call(&address, &["ReadInfo", "--timeout", "200ms"]).await;
    assert_eq!((code, errors.as_str()), (84, "DEADLINE_EXCEEDED: no response within 200ms\n"));
}

#[tokio::test]
async fn the_default_deadline_is_that_of_the_gateway_plus_a_second() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = command(&silent.local_addr().unwrap().to_string(), &["ReadInfo"]);
    command.env("SCM_GATEWAY__UPSTREAM__TIMEOUT", "50ms");
    assert_eq!(ended(command).await.2, "DEADLINE_EXCEEDED: no response within 1s 50ms\n");
}

#[tokio::test]
async fn a_signal_ends_a_stream() {
    let emulator = emulator_with(&["PAID"]).await;
    let gateway = Gateway::of(&emulator).await;
    let request = json!({"cert_id": CERT}).to_string();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = command(&gateway.addresses.server, &["WatchCertificate", "-d", &request]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("{"));
        let pid = child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        assert_eq!(child.wait().await.unwrap().code(), Some(code));
    }
}

#[tokio::test]
async fn a_signal_ends_a_call_whose_output_is_not_read() {
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[]).await;
    let more_than_a_pipe_holds = "x".repeat(512 * 1024);
    emulator.script(Step::Reply(Reply::json(200, &json!({"entire_certificate": more_than_a_pipe_holds}).to_string())));
    let request = json!({"cert_id": CERT}).to_string();
    let mut command = command(&gateway.addresses.server, &["ExportCertificate", "-d", &request]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("{"));
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let refusing = Refusing::new();
    let closed = refusing.address.to_string();
    let (code, _, errors) = call(&closed, &["ReadInfo"]).await;
    let expected = format!(
        "UNAVAILABLE: no connection to {closed}: transport error: tcp connect error: Connection refused (os error 111)\n"
    );
    assert_eq!((code, errors), (94, expected));
}

#[tokio::test]
async fn the_list_has_every_method_of_the_protos() {
    let (code, text, errors) = call("unread", &["--list"]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let with_file = call("unread", &["--list", "--config", "unread.toml"]).await;
    assert_eq!(with_file, (0, text.clone(), String::new()));
    let names: Vec<_> = rpc::methods()
        .iter()
        .map(|method| format!("{}/{}", method.parent_service().full_name(), method.name()))
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), names);
    assert!(names.len() > 30);
}

#[tokio::test]
async fn the_trace_and_metadata_of_the_options_arrive() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let variables = [
        &sink.variables()[..],
        &[
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
            ("SCM_GATEWAY__CALLERS__0__IDENTITY", "orders.example"),
            ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo"),
            ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
        ],
    ]
    .concat();
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let arguments = ["SaveInfo", "-d", SAVE, "--trace", "-H", "X-Forwarded-Client-Cert: DNS=orders.example"];
    let (code, _, errors) = call(&process.address, &arguments).await;
    assert_eq!(code, 0, "{errors}");
    let id = errors.trim_end().strip_prefix("trace id: ").unwrap();
    assert_eq!(process.line("call succeeded").await["trace_id"], id);
    assert_eq!(sink.trace(id, 2).await.len(), 2, "the call and its attempt");
    let (_, _, errors) = call(&process.address, &arguments).await;
    assert!(!errors.contains(id), "each trace has an id of its own");
}

#[tokio::test]
async fn every_method_can_be_called_with_its_sample() {
    let emulator = emulator().await;
    let methods = rpc::names();
    let process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__METHODS", methods.as_str())]).await;
    for rpc in rpcs() {
        let request = samples::request(&rpc, Filling::All);
        let json = |options: &SerializeOptions| {
            let mut json = Vec::new();
            request.serialize_with_options(&mut serde_json::Serializer::new(&mut json), options).unwrap();
            String::from_utf8(json).unwrap()
        };
        let (status, body) = rpc.success();
        let mut sent = Vec::new();
        for proto_names in [true, false] {
            emulator.script(Step::Reply(Reply::json(status, &body)));
            let request = json(&SerializeOptions::new().use_proto_field_name(proto_names));
            let (code, text, errors) = call_with_input(&process.address, &[rpc.name(), "-d", "@-"], &request).await;
            assert_eq!((code, errors.as_str()), (0, ""), "{}", rpc.name());
            let mut reply = serde_json::Deserializer::from_str(&text);
            DynamicMessage::deserialize(rpc.method.output(), &mut reply).unwrap();
            let journal = emulator.take_journal();
            assert_eq!(journal.len(), 1, "{}", rpc.name());
            sent.push((journal[0].method.clone(), journal[0].target.clone(), journal[0].body.clone()));
        }
        assert_eq!(sent[0], sent[1], "{}: both kinds of names", rpc.name());
    }
}

#[tokio::test]
async fn a_closed_output_ends_a_stream() {
    let emulator = emulator_with(&["PAID", "CHECKING_ORG", "PAID", "CHECKING_ORG"]).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__WATCH__INTERVAL", "100ms")]).await;
    let request = json!({"cert_id": CERT}).to_string();
    let mut command = command(&gateway.addresses.server, &["WatchCertificate", "-d", &request]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn dry_run_is_metadata_of_the_call() {
    let mut command = binary(&[]);
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    command.args(["call", "ReadInfo", "--address", &address, "--dry-run", "--timeout", "30s"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (stream, _) = server.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, _) = connection.accept().await.unwrap().unwrap();
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("x-scm-gateway-dry-run"), Some("true"));
    assert_eq!((header("te"), header("traceparent")), (Some("trailers"), None));
    assert!(header("user-agent").unwrap().starts_with("scm-gateway/"), "{request:?}");
    assert!(
        header("grpc-timeout").is_some() && request.uri().path().ends_with("CertificateService/ReadInfo"),
        "{request:?}"
    );
    drop(child);
}

#[tokio::test]
async fn a_dry_run_is_reported_as_such_and_makes_no_attempt() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let certificate = json!({"cert_id": CERT}).to_string();
    for (method, request, reply) in [("SaveInfo", SAVE, "{}\n"), ("WatchCertificate", &certificate, "")] {
        let ended = call(&gateway.addresses.server, &[method, "-d", request, "--dry-run"]).await;
        assert_eq!(ended, (0, reply.to_owned(), String::new()), "{method}");
    }
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn a_gateway_without_dry_runs_is_a_failure() {
    const METADATA: &str = "x-scm-gateway-dry-run";
    const MADE: (i32, &str) = (79, "scm-gateway: the gateway does not know dry runs: the call was made\n");
    const OK: (i32, &str) = (0, "");
    let (message, ok) = (&[0_u8; 5][..], Some("0"));
    for (method, options, metadata, data, status, expected) in [
        ("ReadInfo", &["--dry-run"][..], None, message, ok, MADE),
        ("ReadInfo", &["--dry-run"], Some("false"), message, ok, MADE),
        ("ReadInfo", &["--dry-run"], Some("true"), message, ok, OK),
        ("ReadInfo", &["-H", "x-scm-gateway-dry-run: true"], None, message, ok, MADE),
        ("ReadInfo", &["-H", "x-scm-gateway-dry-run: false"], None, message, ok, OK),
        ("ReadInfo", &[], None, message, ok, OK),
        ("ReadInfo", &["--dry-run"], None, &[], Some("7"), (87, "PERMISSION_DENIED: \n")),
        ("ReadInfo", &["--dry-run"], None, message, Some("14"), (94, "UNAVAILABLE: \n")),
        ("WatchCertificate", &["--dry-run"], None, message, None, MADE), // and the stream does not end
        ("WatchCertificate", &["--dry-run"], None, &[], None, MADE),
        ("WatchCertificate", &["--dry-run"], None, &[], Some("12"), (92, "UNIMPLEMENTED: \n")),
    ] {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        let serve = async {
            let (stream, _) = server.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut response = http::Response::builder().header("content-type", "application/grpc");
            if let Some(value) = metadata {
                response = response.header(METADATA, value);
            }
            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
            stream.send_data(data.into(), false).unwrap();
            if let Some(status) = status {
                let trailers = [("grpc-status".parse().unwrap(), status.parse().unwrap())];
                stream.send_trailers(http::HeaderMap::from_iter(trailers)).unwrap();
            }
            while connection.accept().await.is_some() {}
        };
        let arguments = [&[method, "--address", &address], options].concat();
        let (code, text, errors) = tokio::join!(serve, call("127.0.0.1:1", &arguments)).1;
        let reply = if data.is_empty() { "" } else { "{}\n" };
        assert_eq!(((code, errors.as_str()), text.as_str()), (expected, reply), "{method} {options:?} {metadata:?}");
    }
}

#[tokio::test]
async fn an_error_page_of_a_proxy_has_the_status_of_its_http_status() {
    for (http_status, options, expected) in [
        (503, &["ReadInfo"][..], 94),
        (503, &["ReadInfo", "--dry-run"], 94),
        (403, &["ReadInfo"], 87),
        (404, &["WatchCertificate", "--dry-run"], 92),
    ] {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        let serve = async {
            let (stream, _) = server.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let response = http::Response::builder().status(http_status).header("content-type", "text/html");
            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
            stream.send_data("<html>p1anted</html>".into(), true).unwrap();
            while connection.accept().await.is_some() {}
        };
        let arguments = [options, &["--address", &address]].concat();
        let (code, text, errors) = tokio::join!(serve, call("127.0.0.1:1", &arguments)).1;
        assert_eq!((code, text.as_str()), (expected, ""), "{http_status} {options:?}: {errors}");
        assert!(!errors.contains("p1anted"), "{errors}");
    }
}

#[tokio::test]
async fn help_explains_address_request_deadline_and_exit_codes() {
    let (code, help, errors) = call("unread", &["--help"]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    for expected in [
        "127.0.0.1:50051",
        "-d @-",
        "1 MiB",
        "plus 1s (11s)",
        "\n  81 to 96  80 plus",
        "--timeout <DURATION>",
        "[server.tls]",
        "--plaintext",
        "kubectl exec -i",
        "audit log",
        "\n  79  ",
    ] {
        assert!(help.contains(expected), "{expected} in:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "too wide for a terminal:\n{help}");
}
