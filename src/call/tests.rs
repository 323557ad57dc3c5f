//! Tests of names, addresses, JSON and exit codes. `tests/e2e/call.rs` runs the binary.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use clap::Parser;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use tonic::{Code, Status};

use super::{Arguments, address::Address, failure::Failure, json, methods, server};
use crate::{
    config::{Listen, Target},
    proto::RPCS,
};

/// Characters that a terminal may interpret.
const UNPRINTABLE: &str = "\u{7}\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\
                           \u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

#[test]
fn only_calls_within_the_machine_are_plain_by_default() {
    let is_tls = |options: &[&str], listen: &str, configured| {
        let command_line = ["call", "SaveInfo"].iter().chain(options);
        let arguments = CommandLine::try_parse_from(command_line).unwrap_or_else(|error| panic!("{error}")).arguments;
        let listen = match listen.strip_prefix("unix:") {
            Some(path) => Listen::Unix(path.into()),
            None => Listen::Tcp(listen.parse().expect("an address")),
        };
        let target = Target { listen, tls: configured, timeout: Duration::from_secs(10) };
        server(&arguments, &target).expect("the options are valid").tls.is_some()
    };
    for (address, is_local) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("localhost:1", true),
        ("LOCALHOST:1", true),
        ("unix:/run/a.sock", true),
        ("192.0.2.1:1", false),
        ("0.0.0.0:1", false),
        ("127.1:1", false),
        ("[2001:db8::1]:1", false),
        ("scm.example.org:1", false),
        ("localhost.example.org:1", false),
        ("notlocalhost:1", false),
        ("127.0.0.1.example.org:1", false),
    ] {
        for (options, configured, expected) in [
            (vec!["--address", address], false, !is_local),
            (vec!["--address", address], true, true),
            (vec!["--address", address, "--tls"], false, true),
            (vec!["--address", address, "--servername", "a"], false, true),
            (vec!["--address", address, "--plaintext"], false, false),
            (vec!["--address", address, "--plaintext"], true, false),
        ] {
            assert_eq!(is_tls(&options, "127.0.0.1:1", configured), expected, "{options:?}, configured: {configured}");
        }
    }
    for (listen, configured, expected) in [
        ("127.0.0.1:1", false, false),
        ("0.0.0.0:1", false, false), // called on loopback
        ("unix:/run/a.sock", false, false),
        ("192.0.2.1:1", false, false), // the configuration is that of the listener
        ("127.0.0.1:1", true, true),
        ("unix:/run/a.sock", true, true),
    ] {
        assert_eq!(is_tls(&[], listen, configured), expected, "{listen}");
    }
    for option in [&["--tls"][..], &["--servername", "a"], &["--cacert", "a"], &["--cert", "a", "--key", "a"]] {
        let command_line = [&["call", "SaveInfo", "--plaintext"], option].concat();
        assert!(CommandLine::try_parse_from(command_line).is_err(), "{option:?}");
    }
}

#[test]
fn methods_are_found_by_every_form_of_their_name() {
    let full = "huaweicloud.scm.v1.CertificateService";
    for name in [
        "SaveInfo".to_owned(),
        "CertificateService/SaveInfo".to_owned(),
        "CertificateService.SaveInfo".to_owned(),
        format!("{full}/SaveInfo"),
        format!("/{full}/SaveInfo"),
        format!("{full}.SaveInfo"),
    ] {
        assert_eq!(methods::find(&name).expect(&name).full_name(), format!("{full}.SaveInfo"), "{name}");
    }
    for (name, problem) in [
        ("saveinfo", "unknown method; similar ones are SaveInfo"),
        ("CertificateService/SavInfo", "unknown method; similar ones are SaveInfo"),
        ("TagService/SaveInfo", "unknown method; similar ones are SaveInfo"),
        ("aveInfo", "unknown method; similar ones are SaveInfo"),
        ("ShowCertificat", "unknown method; similar ones are ShowCertificate"),
        ("qqq", "unknown method; `scm-gateway call --list` lists all"),
        ("", "unknown method; `scm-gateway call --list` lists all"),
    ] {
        let found = methods::find(name).expect_err(name);
        assert!(found.starts_with(problem), "{name}: {found}");
    }
}

#[test]
fn every_rpc_is_listed_and_found() {
    let names: Vec<_> = RPCS.iter().map(|rpc| rpc.name.to_owned()).collect();
    assert_eq!(methods::names(), names);
    for rpc in RPCS {
        let method = methods::find(rpc.short_name()).expect("names are unique");
        assert!(!method.is_client_streaming(), "{}: the client sends one message", rpc.name);
    }
}

#[test]
fn the_template_of_every_method_has_all_fields_and_is_a_request() {
    for rpc in RPCS {
        let input = methods::find(rpc.name).expect("a method of the protos").input();
        let template = json::template(&input);
        let request = json::request(&input, &template).expect(rpc.name);
        let is_set = |field: &FieldDescriptor| request.has_field(field) && field.kind().as_message().is_none();
        assert!(!input.fields().any(|field| is_set(&field)), "{}: an empty value is sent", rpc.name);
        let template: serde_json::Value = serde_json::from_str(&template).expect("the template is JSON");
        let keys: BTreeSet<_> = template.as_object().expect("an object").keys().cloned().collect();
        let fields: BTreeSet<_> = input.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(keys, fields, "{}", rpc.name);
    }
}

#[test]
fn invalid_json_names_the_field_and_never_a_value() {
    for (method, text, problem) in [
        ("SaveInfo", "", "is empty; {} is the empty request"),
        ("SaveInfo", " \n", "is empty; {} is the empty request"),
        ("SaveInfo", "{", "is not JSON: EOF while parsing"),
        ("SaveInfo", "{\"cert_id\": p1anted}", "is not JSON: expected value at line 1 column 13"),
        ("SaveInfo", "{} p1anted", "is not JSON: trailing characters"),
        ("SaveInfo", "\"p1anted\"", "expects an object"),
        ("SaveInfo", r#"{"cert": "p1anted"}"#, "cert: unknown field; similar ones are cert_id"),
        ("SaveInfo", r#"{"x": "p1anted"}"#, "x: unknown field; SaveInfoRequest has project_id, cert_id, info"),
        ("SaveInfo", r#"{"cert_id": 2741}"#, "cert_id: expects text in quotes"),
        ("SaveInfo", r#"{"certId": ["p1anted"]}"#, "certId: expects text in quotes"),
        ("SaveInfo", r#"{"info": "p1anted"}"#, "info: expects an object"),
        ("SaveInfo", r#"{"info": {"contry": "p1anted"}}"#, "info.contry: unknown field; similar ones are country"),
        ("SaveInfo", r#"{"info": {"country": {"p1anted": 1}}}"#, "info.country: expects text in quotes"),
        ("SaveInfo", r#"{"info": {"sans": "p1anted"}}"#, "info.sans: expects a list"),
        ("SaveInfo", r#"{"info": {"sans": ["p1anted", 2741]}}"#, "info.sans[1]: expects text in quotes"),
        (
            "SaveInfo",
            r#"{"info": {"agree_privacy_protection": "p1anted"}}"#,
            "info.agree_privacy_protection: expects true",
        ),
        ("ListCertificates", r#"{"limit": "p1anted"}"#, "limit: expects a number of type int32"),
        ("ListCertificates", r#"{"limit": 27.41}"#, "limit: expects a number of type int32"),
        (
            "BatchCreateOrDeleteTags",
            r#"{"tags": [{"key": "a"}, {"key": 2741}]}"#,
            "tags[1].key: expects text in quotes",
        ),
        ("SaveInfo", "-----BEGIN p1anted", "is not JSON: "),
        (
            "SaveInfo",
            r#"{"cert_id": "a", "cert_id": "p1anted"}"#,
            "cert_id: the field is given twice at line 1 column ",
        ),
        ("SaveInfo", r#"{"certId": "a", "cert_id": "p1anted"}"#, "cert_id: the field is given twice"),
        ("SaveInfo", r#"{"cert_id": null, "certId": "p1anted"}"#, "certId: the field is given twice"),
        ("SaveInfo", r#"{"info": {}, "info": {"country": "p1anted"}}"#, "info: the field is given twice"),
        ("SaveInfo", r#"{"info": {"country": "a", "country": "p1anted"}}"#, "info.country: the field is given twice"),
        ("SaveInfo", r#"{"x": {"y": 1, "y": "p1anted"}}"#, "x.y: the field is given twice"),
        (
            "BatchCreateOrDeleteTags",
            r#"{"tags": [{"key": "a"}, {"key": "a", "key": "p1anted"}]}"#,
            "tags[1].key: the field is given twice",
        ),
        (
            "BatchCreateOrDeleteTags",
            r#"{"tags": [{"ky": "p1anted"}]}"#,
            "tags[0].ky: unknown field; Tag has key, value",
        ),
    ] {
        let input = methods::find(method).expect(method).input();
        let found = json::request(&input, text).expect_err(text);
        assert!(found.starts_with(problem), "{text}: {found}");
        assert!(!found.contains("p1anted") && !found.contains("41"), "{found}");
    }
}

#[test]
fn addresses_are_a_host_with_a_port_or_a_socket() {
    for address in ["127.0.0.1:1", "[::1]:50051", "localhost:50051", "unix:/run/a b.sock", "unix:relative"] {
        assert_eq!(Address::parse(address).expect(address).to_string(), address);
    }
    for address in
        ["", "localhost", "127.0.0.1", "::1", "http://a:1", "a:1/path", "user@a:1", ":1", "a:99999", "unix:", "a b:1"]
    {
        assert!(Address::parse(address).is_err(), "{address}");
    }
}

#[test]
fn each_status_has_its_own_exit_code() {
    let mut codes: Vec<_> =
        (1..=16).map(|code| Failure::Status(Status::new(Code::from(code), "")).exit_code()).collect();
    assert_eq!((codes[2], codes[13]), (83, 94));
    codes.extend([Failure::Usage(String::new()).exit_code(), Failure::NoDryRun.exit_code()]);
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), 18, "{codes:?}");
}

#[test]
fn lines_have_no_control_characters() {
    let status = Failure::Status(Status::unknown("a\u{1b}[31mb\nc"));
    assert_eq!(status.lines(), ["UNKNOWN: a\u{fffd}[31mb\u{fffd}c"]);
    let status = Failure::Status(Status::unknown(format!("é中😀{UNPRINTABLE}")));
    assert_eq!(status.lines(), [format!("UNKNOWN: é中😀{}", "\u{fffd}".repeat(UNPRINTABLE.chars().count()))]);
}

#[test]
fn replies_escape_what_a_terminal_may_interpret() {
    let output = methods::find("ReadInfo").expect("a method").output();
    let text = format!("é中😀\n\\{UNPRINTABLE}");
    let mut message = DynamicMessage::new(output.clone());
    let field = output.fields().find(|field| field.name() == "info").expect("a field");
    let info = field.kind().as_message().expect("a message").clone();
    let mut inner = DynamicMessage::new(info);
    inner.set_field_by_name("domain", Value::String(text.clone()));
    message.set_field(&field, Value::Message(inner));
    let printed = json::reply(&message);
    assert!(!printed.contains(|character| character != '\n' && UNPRINTABLE.contains(character)), "{printed:?}");
    assert!(
        printed.contains("é中😀\\n\\\\") && printed.contains("\\u009b") && printed.contains("\\u202e"),
        "{printed}"
    );
    let json: serde_json::Value = serde_json::from_str(&printed).expect("the reply is JSON");
    assert_eq!(json["info"]["domain"], text);
}

#[test]
fn causes_follow_without_a_status_among_them() {
    let mut inner = Status::unknown("transport error");
    inner.set_source(Arc::new(std::io::Error::other("tls handshake eof")));
    let mut status = Status::unavailable("the connection failed");
    status.set_source(Arc::new(inner));
    assert_eq!(Failure::Status(status).lines(), ["UNAVAILABLE: the connection failed: tls handshake eof"]);
}

#[test]
fn deadlines_are_bounded() {
    let parse = |timeout| CommandLine::try_parse_from(["call", "SaveInfo", "--timeout", timeout]);
    for timeout in ["1ns", "5s", "1h 30m", "10000h"] {
        assert!(parse(timeout).is_ok(), "{timeout}");
    }
    for timeout in ["0s", "5", "5 parsecs", "10000h 1ns", "12000y", "500000000000y", ""] {
        let Err(error) = parse(timeout) else { panic!("{timeout}") };
        assert!(error.to_string().contains("duration such as 5s, up to 10000h") || timeout.is_empty(), "{error}");
    }
}

#[test]
fn a_wildcard_listener_is_called_on_loopback() {
    for (listen, address) in [
        (Listen::Tcp("0.0.0.0:1".parse().expect("an address")), "127.0.0.1:1"),
        (Listen::Tcp("[::]:1".parse().expect("an address")), "[::1]:1"),
        (Listen::Tcp("192.0.2.1:1".parse().expect("an address")), "192.0.2.1:1"),
        (Listen::Unix("/run/a b.sock".into()), "unix:/run/a b.sock"),
    ] {
        assert_eq!(Address::of(&listen).to_string(), address);
    }
}
