//! Runs the generator of `build.rs` on a copy of `proto/` with the additions that CONTRIBUTING.md shows, and reads the
//! comments of the proto.

#![allow(clippy::unwrap_used, dead_code, reason = "a test of modules of the build script")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::DescriptorPool;

#[path = "../build/annotations.rs"]
mod annotations;
#[path = "../build/checks.rs"]
mod checks;
#[path = "../build/messages.rs"]
mod messages;
#[path = "../build/methods.rs"]
mod methods;
#[path = "../build/options.rs"]
mod options;
#[path = "../build/rust.rs"]
mod rust;
#[path = "../build/unsupported.rs"]
mod unsupported;

const PACKAGE: &str = "huaweicloud.scm.v1";
const DIRECTORY: &str = "huaweicloud/scm/v1";

/// Returns the protos that CONTRIBUTING.md shows, without their indentation.
fn examples() -> Vec<String> {
    let page = include_str!("../CONTRIBUTING.md");
    let blocks = page.split("   ```proto\n").skip(1).map(|rest| rest.split("   ```\n").next().unwrap());
    blocks
        .map(|block| block.lines().map(|line| line.strip_prefix("   ").unwrap_or(line).to_owned() + "\n").collect())
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(&path, target).unwrap() }
    }
}

/// Returns the proto files of the package in a folder.
fn files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(DIRECTORY)).unwrap();
    entries.map(|entry| Path::new(DIRECTORY).join(entry.unwrap().file_name())).collect()
}

/// Adds a field at the end of a message in a proto file of the folder.
fn add_field(root: &Path, message: &str, field: &str) {
    let head = format!("message {message} {{\n");
    for file in files(root) {
        let source = fs::read_to_string(root.join(&file)).unwrap();
        let Some((before, after)) = source.split_once(&head) else { continue };
        let (body, after) = after.split_once("\n}\n").unwrap();
        return fs::write(root.join(&file), format!("{before}{head}{body}\n{field}\n}}\n{after}")).unwrap();
    }
    panic!("no message {message}");
}

fn read(root: &Path) -> annotations::Api {
    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(files(root)).unwrap();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
    annotations::read(&pool, PACKAGE, &["WatchCertificate"]).unwrap()
}

/// Generated source, whose white space does not matter.
struct Generated(String);

impl Generated {
    /// Takes source that has to be Rust.
    fn new(source: rust::Source) -> Self {
        let source = source.unwrap();
        syn::parse_file(&source).unwrap_or_else(|error| panic!("{error}: {source}"));
        Self(words(&source))
    }

    /// Asserts that the source has these lines after each other.
    fn assert(&self, lines: &str) {
        assert!(self.0.contains(&words(lines)), "no {lines}");
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_shown_rpc_and_field_cost_only_a_proto_edit() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    copy(Path::new("proto"), root);
    let before = read(root);
    let examples = examples();
    let [file, field] = examples.as_slice() else { panic!("two examples: {examples:?}") };
    let name = file.lines().next().unwrap().strip_prefix("// proto/").unwrap();
    fs::write(root.join(name), file).unwrap();
    let message = field.lines().next().unwrap().strip_prefix("// message ").unwrap();
    add_field(root, message, field);

    let api = read(root);

    assert_eq!((api.services.len(), api.methods.len()), (before.services.len() + 1, before.methods.len() + 1));
    let methods = Generated::new(methods::rest(&api));
    methods.assert(r#"/// `huaweicloud.scm.v1.EventService/ListEvents`: `GET /v3/scm/certificates/{cert_id}/events`."#);
    methods.assert(r#"idempotent: true, names_certificate: true,"#);
    methods.assert("success_statuses: &[200], empty_reply: false,");
    methods.assert(r#"path.literal("/certificates"); path.variable(&request.cert_id); path.literal("/events");"#);
    methods.assert(
        r#"if let Some(value) = &request.since { query.add("since", value); }
        for value in &request.kinds { query.add("kinds", value); }"#,
    );
    let checks = Generated::new(checks::generate(&api, &[]));
    checks.assert(
        r#"found.id(at, "cert_id", &self.cert_id);
        if let Some(value) = self.since && value < 0 { found.add(at, "since", "must be at least 0"); }
        if self.kinds.len() > 10 { found.add(at, "kinds", "must have at most 10 entries"); }
        found.words(at, "kinds", &mut self.kinds, &["ISSUED", "REVOKED"], "must be one of ISSUED, REVOKED");"#,
    );
    checks.assert(r#"if let Some(value) = &self.comment { found.text(at, "comment", value, &text::Rules { min_len: 0, max_len: 255,"#);
    let json = Generated::new(messages::json(&api, &[]));
    json.assert("self.page.get_or_insert_with(proto::EventPage::empty).read(key, map)");
    json.assert(r#""events" => self.events = Object::<proto::Event>::list(map)?,"#);
    json.assert(
        r#""event_time" => self.event_time = Number::<i64>::value(map)?.unwrap_or_default(),
        "event-type" => self.kind = Text::value(map)?.unwrap_or_default(),
        "sans" => self.sans = split(map)?,"#,
    );
    json.assert(r#"if let Some(value) = &self.comment { object.member("comment", value); }"#);
    let list = Generated::new(methods::list(&api));
    list.assert(r#"name: "huaweicloud.scm.v1.EventService/ListEvents", read_only: true, granted_by_name: false"#);
    let services = Generated::new(methods::services(&api, &[("WatchCertificate", "WatchCertificate")]));
    services.assert("impl crate::grpc::service::event_service_server::EventService for Gateway {");
    services.assert("self.call::<crate::scm::api::methods::ListEvents>(request).await");
    Generated::new(methods::routes(&api)).assert(r#"Some("huaweicloud.scm.v1.EventService") =>"#);
    Generated::new(messages::debug_and_drop(&api)).assert(r#"f.write_str("EventPage([REDACTED])")"#);
}

/// Reads `proto/` with one more file.
fn read_with(definitions: &str) -> annotations::Api {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new("proto"), folder.path());
    let source = format!(
        "syntax = \"proto3\"; package {PACKAGE}; import \"google/api/annotations.proto\"; \
         import \"huaweicloud/scm/rest/v1/annotations.proto\"; {definitions}"
    );
    fs::write(folder.path().join(DIRECTORY).join("more.proto"), source).unwrap();
    read(folder.path())
}

#[test]
fn a_message_may_have_the_name_of_a_reader() {
    let api = read_with(
        "service More { rpc Do(Request) returns (Text) { option (google.api.http) = { get: \"/{project_id}\" }; } } \
         message Request { string project_id = 1; } message Text { string abstract = 1; Object become = 2; } \
         message Object { string key = 1; }",
    );
    let json = Generated::new(messages::json(&api, &[]));
    json.assert("impl ReadJson for proto::Text {");
    json.assert("self.r#abstract = Text::value(map)?");
    json.assert("self.r#become = Object::<proto::Object>::value(map)?");
}

#[test]
fn a_limit_names_each_of_its_parts() {
    for (rules, limit) in [
        ("min_len: 2", "must have at least 2 characters"),
        ("max_len: 1", "must have at most 1 character"),
        ("max_bytes: 9000", "must have at most 9,000 bytes in UTF-8"),
        ("min_len: 2 max_len: 3", "must have 2 to 3 characters"),
        ("min_len: 3 max_len: 3", "must have 3 characters"),
        ("max_len: 3 max_bytes: 5", "must have at most 3 characters, and at most 5 bytes in UTF-8"),
        ("min_len: 2 max_len: 3 max_bytes: 5", "must have 2 to 3 characters, and at most 5 bytes in UTF-8"),
    ] {
        let api = read_with(&format!(
            "service More {{ rpc Do(Request) returns (Reply) {{ option (google.api.http) = \
             {{ get: \"/{{project_id}}\" }}; }} }} message Reply {{}} message Request {{ string project_id = 1; \
             string a = 2 [(huaweicloud.scm.rest.v1.field) = {{ {rules} }}]; }}"
        ));
        Generated::new(checks::generate(&api, &[])).assert(&format!("limit: {limit:?}"));
    }
}

#[test]
fn a_whole_response_can_be_an_object_or_an_array() {
    let rpc = |name: &str| {
        format!(
            "rpc {name}(Request) returns ({name}Out) {{ option (google.api.http) = \
             {{ get: \"/{{project_id}}\" response_body: \"x\" }}; }}"
        )
    };
    let api = read_with(&format!(
        "service Whole {{ {} {} {} }} \
         message Request {{ string project_id = 1; }} \
         message One {{ string a = 1 [(huaweicloud.scm.rest.v1.field).acknowledgement = \"ok\"]; }} \
         message Two {{ string b = 1; }} message ObjectOut {{ One x = 1; }} \
         message ObjectsOut {{ repeated Two x = 1; }} message ValuesOut {{ repeated int64 x = 1; }}",
        rpc("Object"),
        rpc("Objects"),
        rpc("Values"),
    ));
    let json = Generated::new(messages::json(&api, &[]));
    json.assert("fn is_acknowledged(&self) -> bool { !self.a.is_empty() }");
    json.assert("fn is_acknowledged(&self) -> bool { self.x.as_ref().is_some_and(proto::One::is_acknowledged) }");
    json.assert(
        "self.x = Object::<proto::Two>::entries(array)?; Ok(()) } const FORM: super::Form = super::Form::Objects;",
    );
    json.assert("self.x = Number::<i64>::entries(array)?; Ok(()) } const FORM: super::Form = super::Form::Values;");
}

/// Returns the comment of an RPC in one line.
fn comment(binding: &annotations::RestBinding) -> String {
    let file = binding.method.parent_file();
    let source = file.file_descriptor_proto().source_code_info.clone().unwrap();
    let location = source.location.into_iter().find(|location| location.path == binding.method.path()).unwrap();
    words(location.leading_comments())
}

#[test]
fn comments_say_what_to_read_after_an_unknown_outcome() {
    let api = read(Path::new("proto"));
    let reads = |text: &str| api.methods.iter().any(|rpc| rpc.read_only && text.contains(rpc.method.name()));
    for binding in &api.methods {
        let comment = comment(binding);
        let advice = comment.split_once("After UNKNOWN (UPSTREAM_OUTCOME_UNKNOWN):").map(|(_, advice)| advice);
        assert_eq!(advice.is_some(), !binding.idempotent, "{}", binding.rpc());
        assert!(advice.is_none_or(reads), "{}", binding.rpc());
    }
}
