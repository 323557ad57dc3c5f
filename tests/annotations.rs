//! Tests which protos `build.rs` accepts, and the messages about others.

#![allow(clippy::unwrap_used, dead_code, reason = "a test of a module of the build script")]

use prost_reflect::DescriptorPool;
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
};

#[path = "../build/annotations.rs"]
mod annotations;

/// A proto file in memory.
struct Inline(String);

impl FileResolver for Inline {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "test.proto" => File::from_source(name, &self.0),
            other => Err(protox::Error::file_not_found(other)),
        }
    }
}

fn read(definitions: &str) -> Result<annotations::Api, String> {
    let source = format!(
        "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\"; import \"google/api/http.proto\"; \
         message Reply {{ string a = 1; }} message Body {{ string b = 1; }} {definitions}"
    );
    let mut resolver = ChainFileResolver::new();
    resolver.add(Inline(source));
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("test.proto").unwrap();
    annotations::read(&DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap(), "t")
}

/// Reads a service with one RPC.
fn rpc(rule: &str, request: &str) -> Result<annotations::Api, String> {
    read(&format!(
        "service S {{ rpc Do(Request) returns (Reply) {{ option (google.api.http) = {{ {rule} }}; }} }} \
         message Request {{ string project_id = 1; {request} }}"
    ))
}

#[test]
fn a_plain_rpc_is_accepted() {
    let api = rpc(r#"put: "/v2/{project_id}/x/{type}" body: "body""#, "string type = 2; Body body = 3;").unwrap();
    let binding = &api.methods[0];
    assert_eq!((binding.verb.as_str(), binding.template.as_str()), ("PUT", "/v2/{project_id}/x/{type}"));
    assert_eq!((binding.body.as_deref(), binding.idempotent), (Some("body"), false), "unset means not idempotent");
    assert_eq!(binding.rpc(), "t.S/Do");
}

#[test]
fn idempotency_comes_from_the_proto() {
    for (level, idempotent) in [("IDEMPOTENCY_UNKNOWN", false), ("IDEMPOTENT", true), ("NO_SIDE_EFFECTS", true)] {
        let api = read(&format!(
            "service S {{ rpc Do(Request) returns (Reply) {{ option idempotency_level = {level}; \
             option (google.api.http) = {{ get: \"/{{project_id}}\" }}; }} }} message Request {{ string project_id = 1; }}"
        ));
        assert_eq!(api.unwrap().methods[0].idempotent, idempotent, "{level}");
    }
}

#[test]
fn unsupported_annotations_are_rejected() {
    for (rule, request, expected) in [
        (r#"post: "v2/{project_id}""#, "", "t.S.Do: the path begins with a slash"),
        (r#"post: "/{project_id}?a=b""#, "", "path segment \"{project_id}?a=b\" is neither"),
        (r#"post: "/{project_id}/a b""#, "", "path segment \"a b\" is neither"),
        (r#"post: "/{project_id}/""#, "", "path segment \"\" is neither"),
        (r#"post: "/v2""#, "", "the path needs {project_id}"),
        (r#"post: "/{project_id}/{project_id}""#, "", "path variable {project_id} is there twice"),
        (r#"post: "/{project_id}/{id}""#, "int32 id = 2;", "path variable {id} has to name a string field"),
        (r#"post: "/{project_id}/{id}""#, "optional string id = 2;", "path variable {id} has to name a string field"),
        (r#"post: "/{project_id}" body: "*""#, "", "body \"*\" has to name a message field"),
        (r#"post: "/{project_id}" body: "b""#, "repeated Body b = 2;", "body \"b\" has to name a message field"),
        (r#"get: "/{project_id}" body: "b""#, "Body b = 2;", "GET has no body"),
        (r#"post: "/{project_id}""#, "string a = 2;", "field a is bound to neither path nor body"),
        (r#"post: "/{project_id}" response_body: "a""#, "", "response_body is not supported"),
        (r#"body: "b""#, "Body b = 2;", "(google.api.http) names no path"),
    ] {
        let error = rpc(rule, request).err().unwrap_or_default();
        assert!(error.contains(expected), "{rule} {request}: {error:?}");
    }
}

#[test]
fn fields_without_plain_json_are_rejected() {
    for (field, expected) in [
        ("enum E { A = 0; } E e = 1;", "t.M.e: enums are not supported"),
        ("bytes b = 1;", "t.M.b: this type is not supported"),
        ("int64 n = 1;", "t.M.n: this type is not supported"),
        ("double n = 1;", "t.M.n: this type is not supported"),
        ("repeated int32 n = 1;", "t.M.n: lists are of strings or messages"),
        ("map<string, string> m = 1;", "maps are not supported"),
        ("oneof o { string a = 1; string b = 2; }", "t.M.a: oneof is not supported"),
        ("message N { string a = 1; } N n = 1;", "nested messages"),
        ("google.api.HttpRule r = 1;", "t.M.r: messages of other packages"),
        ("string a_b = 1 [json_name = \"a_b\"];", "t.M.a_b: json_name is not supported"),
        ("string self = 1;", "t.M.self: the name is reserved in Rust"),
        ("optional string request_info = 1;", "t.M.request_info: the vendor's acknowledgement"),
    ] {
        let service =
            "service S { rpc Do(Request) returns (Reply) { option (google.api.http) = { get: \"/{project_id}\" }; } }";
        let error = read(&format!("{service} message Request {{ string project_id = 1; }} message M {{ {field} }}"));
        let error = error.err().unwrap_or_default();
        assert!(error.contains(expected), "{field}: {error:?}");
    }
}

#[test]
fn unsupported_services_are_rejected() {
    let rpc = |rpc: &str| format!("{rpc} {{ option (google.api.http) = {{ get: \"/{{project_id}}\" }}; }}");
    let request = "message Request { string project_id = 1; }";
    let plain = rpc("rpc Do(Request) returns (Reply)");
    for (definitions, expected) in [
        (request.to_owned(), "t: has to have exactly one service"),
        (format!("service A {{ {plain} }} service B {{ {plain} }} {request}"), "t: has to have exactly one service"),
        (
            format!("service S {{ {} }} {request}", rpc("rpc Do(stream Request) returns (Reply)")),
            "streams have no REST side",
        ),
        (
            format!("service S {{ {} }} {request}", rpc("rpc Reply(Request) returns (.t.Reply)")),
            "t.S/Reply: the RPC has the same name as a message",
        ),
        (format!("service S {{ {plain} }} {request} message ListCSRs {{ }}"), "t.ListCSRs: prost names it ListCsRs"),
        (format!("service S {{ rpc Do(Request) returns (Reply); }} {request}"), "has no option (google.api.http)"),
    ] {
        let error = read(&definitions).err().unwrap_or_default();
        assert!(error.contains(expected), "{definitions}: {error:?}");
    }
}
