//! Tests of names, addresses, JSON and exit codes. `tests/e2e/call.rs` runs the binary.

use std::collections::BTreeSet;

use tonic::{Code, Status};

use super::{client::Address, failure::Failure, json, methods};
use crate::{config::Listen, proto::RPCS};

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
        json::request(&input, &template).expect(rpc.name);
        let template: serde_json::Value = serde_json::from_str(&template).expect("the template is JSON");
        let keys: BTreeSet<_> = template.as_object().expect("an object").keys().cloned().collect();
        let fields: BTreeSet<_> = input.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(keys, fields, "{}", rpc.name);
    }
}

#[test]
fn invalid_json_names_the_field_and_never_a_value() {
    for (method, text, problem) in [
        ("SaveInfo", "", "is not JSON: EOF while parsing"),
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
    codes.push(Failure::Usage(String::new()).exit_code());
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), 17, "{codes:?}");
}

#[test]
fn lines_have_no_control_characters() {
    let status = Failure::Status(Status::unknown("a\u{1b}[31mb\nc"));
    assert_eq!(status.lines(), ["UNKNOWN: a\u{fffd}[31mb\u{fffd}c"]);
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
