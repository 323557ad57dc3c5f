//! Tests which protos `build.rs` accepts, and the messages about others.

#![allow(clippy::unwrap_used, dead_code, reason = "a test of a module of the build script")]

use prost_reflect::DescriptorPool;
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
};

#[path = "../build/annotations.rs"]
mod annotations;
#[path = "../build/options.rs"]
mod options;
#[path = "../build/unsupported.rs"]
mod unsupported;

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
    read_with(definitions, &[])
}

/// Reads definitions with RPCs that are written by hand.
fn read_with(definitions: &str, custom: &[&str]) -> Result<annotations::Api, String> {
    let source = format!(
        "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\"; import \"google/api/http.proto\"; \
         import \"huaweicloud/scm/rest/v1/annotations.proto\"; \
         message Reply {{ string a = 1; }} message Body {{ string b = 1; }} {definitions}"
    );
    let mut resolver = ChainFileResolver::new();
    resolver.add(Inline(source));
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file("test.proto")
        .map_err(|error| error.to_string())?;
    annotations::read(&DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap(), "t", custom)
}

/// Reads a service with one RPC.
fn rpc(rule: &str, request: &str) -> Result<annotations::Api, String> {
    read(&service(rule, "", &format!("string project_id = 1; {request}")))
}

/// Returns a service with one RPC.
fn service(rule: &str, options: &str, request: &str) -> String {
    format!(
        "service S {{ rpc Do(Request) returns (Reply) {{ option (google.api.http) = {{ {rule} }}; {options} }} }} \
         message Request {{ {request} }}"
    )
}

/// Reads a message with one field, in a service that does not use it.
fn field(field: &str) -> Result<annotations::Api, String> {
    let service = service(r#"get: "/{project_id}""#, "", "string project_id = 1;");
    read(&format!("{service} message M {{ {field} string text = 90; }}"))
}

const ROUTED: &str = "string project_id = 1 [(huaweicloud.scm.rest.v1.field).routing_only = true];";

#[test]
fn a_plain_rpc_is_accepted() {
    let api = rpc(r#"put: "/v2/{project_id}/x/{type}" body: "body""#, "string type = 2; Body body = 3;").unwrap();
    let binding = &api.methods[0];
    assert_eq!((binding.verb.as_str(), binding.template.as_str()), ("PUT", "/v2/{project_id}/x/{type}"));
    assert_eq!(binding.body, annotations::Body::Field("body".to_owned()));
    assert_eq!((binding.idempotent, binding.read_only), (false, false), "unset means not idempotent");
    assert_eq!((binding.rules.success_statuses.as_slice(), binding.rules.grant_by_name), (&[200][..], false));
    assert_eq!(binding.rpc(), "t.S/Do");
}

#[test]
fn every_field_of_a_request_has_its_place() {
    use annotations::Place::{Body, Nowhere, Path, Query};
    let fields = format!("{ROUTED} string id = 2; repeated string tag = 3; Body body = 4; repeated Body list = 5;");
    for (rule, expected) in [
        (r#"post: "/x/{id}" body: "*""#, [Nowhere, Path, Body, Body, Body]),
        (r#"post: "/x" body: "*""#, [Nowhere, Body, Body, Body, Body]),
    ] {
        let api = read(&service(rule, "", &fields)).unwrap();
        let request = api.messages.iter().find(|message| message.name() == "Request").unwrap();
        let places: Vec<_> = request.fields.iter().map(|field| api.methods[0].place(field)).collect();
        assert_eq!(places, expected, "{rule}");
    }
    let fields = format!("{ROUTED} string id = 2; repeated string tag = 3; Body inner = 4; repeated Body list = 5;");
    let api = read(&service(r#"patch: "/x/{id}" body: "list""#, "", &fields)).unwrap();
    let request = api.messages.iter().find(|message| message.name() == "Request").unwrap();
    let places: Vec<_> = request.fields.iter().map(|field| api.methods[0].place(field)).collect();
    assert_eq!(places, [Nowhere, Path, Query, Query, Body]);
}

#[test]
fn a_json_name_replaces_the_name_only_if_it_is_set() {
    let api = field("string a_b = 1; string c_d = 2 [json_name = \"cD\"]; string e = 3 [json_name = \"E\"];").unwrap();
    let message = api.messages.iter().find(|message| message.name() == "M").unwrap();
    let keys: Vec<_> = message.fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["a_b", "cD", "E", "text"]);
}

#[test]
fn idempotency_comes_from_the_proto() {
    for (level, idempotent, read_only) in
        [("IDEMPOTENCY_UNKNOWN", false, false), ("IDEMPOTENT", true, false), ("NO_SIDE_EFFECTS", true, true)]
    {
        let option = format!("option idempotency_level = {level};");
        let api = read(&service(r#"get: "/{project_id}""#, &option, "string project_id = 1;")).unwrap();
        assert_eq!((api.methods[0].idempotent, api.methods[0].read_only), (idempotent, read_only), "{level}");
    }
}

#[test]
fn unsupported_annotations_are_rejected() {
    for (rule, request, expected) in [
        (r#"post: "v2/{project_id}""#, "", "t.S/Do: the path begins with a slash"),
        (r#"post: "/{project_id}?a=b""#, "", "path segment \"{project_id}?a=b\" is neither"),
        (r#"post: "/{project_id}/a b""#, "", "path segment \"a b\" is neither"),
        (r#"post: "/{project_id}/*""#, "", "path segment \"*\" is neither"),
        (r#"post: "/{project_id}/{id=**}""#, "string id = 2;", "path variable {id=**} has to name a string field"),
        (r#"post: "/{project_id}/""#, "", "path segment \"\" is neither"),
        (r#"post: "/v2""#, "", "the request needs `string project_id`"),
        (r#"post: "/{project_id}/{project_id}""#, "", "path variable {project_id} is there twice"),
        (r#"post: "/{project_id}/{id}""#, "int32 id = 2;", "path variable {id} has to name a string field"),
        (r#"post: "/{project_id}/{id}""#, "optional string id = 2;", "path variable {id} has to name a string field"),
        (r#"post: "/{project_id}" body: "b""#, "string b = 2;", "body \"b\" has to name a message or a list"),
        (r#"get: "/{project_id}" body: "b""#, "Body b = 2;", "GET has no body"),
        (r#"delete: "/{project_id}" body: "*""#, "Body b = 2;", "DELETE has no body"),
        (r#"get: "/{project_id}""#, "repeated Body list = 2;", "field list is a list of messages, which no query"),
        (r#"post: "/{project_id}" response_body: "b""#, "", "response_body \"b\" names no field of the reply"),
        (r#"post: "/{project_id}" response_body: "a""#, "", "response_body \"a\" has to name the only field"),
        (r#"body: "b""#, "Body b = 2;", "(google.api.http) names no path"),
        (
            r#"get: "/{project_id}""#,
            "string s = 2 [debug_redact = true];",
            "field s is a secret, which no query may hold",
        ),
        (
            r#"get: "/{project_id}""#,
            "In in = 2; } message In { string s = 2 [debug_redact = true];",
            "field s is a secret, which no query may hold",
        ),
        (
            r#"get: "/{project_id}""#,
            "repeated string l = 2 [(huaweicloud.scm.rest.v1.field).send_empty = true];",
            "field l is a list in the query, where send_empty needs joined_by",
        ),
        (
            r#"put: "/{project_id}" body: "l""#,
            r#"repeated string l = 2 [(huaweicloud.scm.rest.v1.field).joined_by = ","];"#,
            "body \"l\" is a JSON list: joined_by does not fit",
        ),
        (
            r#"put: "/{project_id}" body: "*""#,
            "In in = 2; } message In { string project_id = 1 [(huaweicloud.scm.rest.v1.field).routing_only = true];",
            "t.S/Do: In.project_id: routing_only is for the project_id of the request itself",
        ),
        (
            r#"put: "/{project_id}" body: "*""#,
            r#"string s = 2; bool b = 3 [(huaweicloud.scm.rest.v1.field).is_nonempty = "s"];"#,
            "Request.b: is_nonempty is for replies",
        ),
        (
            r#"put: "/{project_id}" body: "*""#,
            r#"string s = 2 [(huaweicloud.scm.rest.v1.field).acknowledgement = "ok"];"#,
            "Request.s: acknowledgement is for replies",
        ),
        (
            r#"put: "/{project_id}" body: "*""#,
            r#"string s = 2 [(huaweicloud.scm.rest.v1.field) = { json_aliases: ["t"] }];"#,
            "Request.s: json_aliases are for replies",
        ),
    ] {
        let error = rpc(rule, request).err().unwrap_or_default();
        assert!(error.contains(expected), "{rule} {request}: {error:?}");
    }
}

#[test]
fn rules_that_do_not_fit_their_field_are_rejected() {
    for (declaration, rules, expected) in [
        ("int32 n", "max_len: 3", "min_len, max_len, max_bytes, multiline and not_blank are for strings"),
        ("repeated string n", "not_blank: true", "not_blank is for a single string"),
        ("string n", "gte: 3", "in, gte and lte are for a single number"),
        ("int32 n", "gte: 3 in: [1]", "in does not go together with gte and lte"),
        ("int32 n", "gte: -2147483649", "in, gte and lte of an int32 have to be numbers that it can hold"),
        ("int32 n", "lte: 2147483648", "in, gte and lte of an int32 have to be numbers that it can hold"),
        ("int32 n", "in: [1, 2147483648]", "in, gte and lte of an int32 have to be numbers that it can hold"),
        ("int32 n", "gte: 3 lte: 2", "gte is larger than lte"),
        ("string n", "min_len: 3 max_len: 2", "the smallest length is larger"),
        ("string n", "max_items: 3", "min_items and max_items are for lists"),
        ("int32 n", "required: true", "a number is always there"),
        ("optional string n", "required: true", "an optional field is not required"),
        ("string n", "words: [\"A\"] max_len: 3", "words are for strings, without rules"),
        ("string n", "id: true max_len: 3", "id is for strings, without rules"),
        ("string n", "joined_by: \";\"", "joined_by is for lists of strings"),
        ("repeated string n", "joined_by: \"|\"", "joined_by is \";\" or \",\""),
        ("repeated string n", "joined_by: \";\" max_items: 3", "a joined list has rules for its text"),
        ("string n", "routing_only: true", "routing_only is for project_id"),
        ("optional string n", "acknowledgement: \"ok\"", "acknowledgement is for a string that is not optional"),
        ("string n", "send_empty: true", "send_empty is for lists"),
        ("string n", "is_nonempty: \"text\"", "is_nonempty is for a bool"),
        ("bool n", "is_nonempty: \"other\"", "is_nonempty has to name a string"),
        ("repeated string n", "json_aliases: [\"m\"]", "json_aliases are for a single value"),
        ("string n", "json_aliases: [\"m\"] acknowledgement: \"ok\"", "json_aliases do not go together"),
        ("bool n", "json_aliases: [\"m\"] is_nonempty: \"text\"", "json_aliases do not go together"),
        ("string n", "json_aliases: [\"text\"]", "the JSON key text is there twice"),
    ] {
        let error = field(&format!("{declaration} = 1 [(huaweicloud.scm.rest.v1.field) = {{ {rules} }}];"));
        let error = error.err().unwrap_or_default();
        assert!(error.contains(expected), "{declaration} {rules}: {error:?}");
    }
    assert!(field("bool n = 1 [debug_redact = true];").err().unwrap().contains("debug_redact is for strings"));
}

#[test]
fn a_path_variable_has_only_the_rules_of_an_id() {
    for (options, is_accepted) in [
        ("(huaweicloud.scm.rest.v1.field) = { id: true }", true),
        ("(huaweicloud.scm.rest.v1.field) = { required: true }", true),
        ("(huaweicloud.scm.rest.v1.field) = { max_len: 3 }", false),
        ("(huaweicloud.scm.rest.v1.field) = { min_len: 3 }", false),
        ("(huaweicloud.scm.rest.v1.field) = { max_bytes: 3 }", false),
        ("(huaweicloud.scm.rest.v1.field) = { words: [\"A\"] }", false),
        ("(huaweicloud.scm.rest.v1.field) = { multiline: true }", false),
        ("(huaweicloud.scm.rest.v1.field) = { not_blank: true }", false),
        ("debug_redact = true", false),
    ] {
        let problem = rpc(r#"get: "/{project_id}/{x}""#, &format!("string x = 2 [{options}];")).err();
        let expected = "t.S/Do: path variable {x} is an id, and no secret: only id, required and routing_only fit";
        assert_eq!(problem.as_deref(), (!is_accepted).then_some(expected), "{options}");
    }
}

#[test]
fn a_shared_request_has_the_same_places_in_each_rpc() {
    for (rule, is_accepted) in [
        (r#"put: "/other/{project_id}/{a}" body: "*""#, true),
        (r#"get: "/{project_id}/{a}""#, false),
        (r#"put: "/{project_id}/{b}" body: "*""#, false),
    ] {
        let first =
            service(r#"put: "/{project_id}/{a}" body: "*""#, "", "string project_id = 1; string a = 2; string b = 3;");
        let second = format!(
            "service T {{ rpc Other(Request) returns (Reply) {{ option (google.api.http) = {{ {rule} }}; }} }}"
        );
        let expected = "t.S/Do: the request is that of an RPC with another path, query or body";
        assert_eq!(read(&(first + &second)).err().as_deref(), (!is_accepted).then_some(expected), "{rule}");
    }
}

#[test]
fn unsupported_rules_of_rpcs_are_rejected() {
    for (rules, expected) in [
        ("success_statuses: [404]", "success_statuses: 404 is no success"),
        ("success_statuses: [204]", "a 204 has no body, so empty_reply is needed"),
    ] {
        let option = format!("option (huaweicloud.scm.rest.v1.method) = {{ {rules} }};");
        let error =
            read(&service(r#"get: "/{project_id}""#, &option, "string project_id = 1;")).err().unwrap_or_default();
        assert!(error.contains(expected), "{rules}: {error:?}");
    }
}

#[test]
fn fields_without_plain_json_are_rejected() {
    for (declaration, expected) in [
        ("enum E { A = 0; } E e = 1;", "t.M.e: enums are not supported"),
        ("bytes b = 1;", "t.M.b: this type is not supported"),
        ("double n = 1;", "t.M.n: this type is not supported"),
        ("map<string, string> m = 1;", "maps are not supported"),
        ("oneof o { string a = 1; string b = 2; }", "t.M.a: oneof is not supported"),
        ("message N { string a = 1; } N n = 1;", "nested messages"),
        ("M inner = 1;", "t.M: a message that contains itself"),
        ("google.api.HttpRule r = 1;", "t.M.r: messages of other packages"),
        ("string self = 1;", "t.M.self: the name is reserved in Rust"),
        ("string extern = 1;", "t.M.extern: the name is reserved in Rust"),
        ("string recordName = 1;", "t.M.recordName: prost names it record_name: use that, with a json_name"),
        (
            r#"string a = 1 [json_name = "a\"b"];"#,
            "t.M.a: a json_name has no quotation mark, backslash or control character",
        ),
        ("string a__b = 1;", "t.M.a__b: prost names it a_b: use that"),
        ("uint32 n = 1;", "t.M.n: this type is not supported: use string, bool, int32, int64 or a message"),
        ("uint64 n = 1;", "t.M.n: this type is not supported"),
    ] {
        let error = field(declaration).err().unwrap_or_default();
        assert!(error.contains(expected), "{declaration}: {error:?}");
    }
}

#[test]
fn unsupported_response_bodies_are_rejected() {
    let ack = "(huaweicloud.scm.rest.v1.field).acknowledgement = \"ok\"";
    for (field, inner, expected) in [
        ("Inner x = 1;", format!("string a = 1 [{ack}];"), None),
        ("repeated Inner x = 1;", "string a = 1;".to_owned(), None),
        ("repeated int64 x = 1;", String::new(), None),
        (
            "repeated Inner x = 1;",
            format!("string a = 1 [{ack}];"),
            Some("t.S/Do: Inner: acknowledgement is for the message that is the JSON object of a reply"),
        ),
        ("Inner x = 1;", "string code = 1;".to_owned(), Some("a reply with the key code would be taken for an error")),
        ("repeated Inner x = 1;", "string code = 1;".to_owned(), Some("a reply with the key code would be")),
        (
            "repeated string x = 1 [(huaweicloud.scm.rest.v1.field).joined_by = \";\"];",
            String::new(),
            Some("response_body \"x\" has no key: joined_by and json_aliases do not fit"),
        ),
        (
            "Inner x = 1 [(huaweicloud.scm.rest.v1.field) = { json_aliases: [\"y\"] }];",
            String::new(),
            Some("response_body \"x\" has no key: joined_by and json_aliases do not fit"),
        ),
    ] {
        let result = read(&format!(
            "service S {{ rpc Do(Request) returns (Out) {{ option (google.api.http) = \
             {{ get: \"/{{project_id}}\" response_body: \"x\" }}; }} }} \
             message Request {{ string project_id = 1; }} message Out {{ {field} }} message Inner {{ {inner} }}"
        ));
        match (result, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => assert!(error.contains(expected), "{field} {inner}: {error:?}"),
            (result, expected) => panic!("{field} {inner}: {:?} instead of {expected:?}", result.err()),
        }
    }
}

#[test]
fn unsupported_services_are_rejected() {
    let rpc = |rpc: &str| format!("{rpc} {{ option (google.api.http) = {{ get: \"/{{project_id}}\" }}; }}");
    let request = "message Request { string project_id = 1; }";
    let plain = rpc("rpc Do(Request) returns (Reply)");
    for (definitions, expected) in [
        (request.to_owned(), "t: has no service"),
        (format!("service A {{ {plain} }} service B {{ {plain} }} {request}"), "t.A/Do: the name is there twice"),
        (
            format!("service S {{ {} }} {request}", rpc("rpc Do(stream Request) returns (Reply)")),
            "streams have no REST side",
        ),
        (
            format!("service S {{ {} }} {request}", rpc("rpc Reply(Request) returns (.t.Reply)")),
            "t.S/Reply: the RPC has the same name as a message",
        ),
        (
            format!(
                "service S {{ {} }} {request} message E {{ string code = 1; }}",
                rpc("rpc Do(Request) returns (E)")
            ),
            "t.S/Do: a reply with the key code would be taken for an error",
        ),
        (
            format!(
                "service S {{ {} }} {request} message E {{ Inner inner = 1; }} message Inner {{ string a = 1 \
                 [(huaweicloud.scm.rest.v1.field).acknowledgement = \"ok\"]; }}",
                rpc("rpc Do(Request) returns (E)")
            ),
            "t.S/Do: Inner: acknowledgement is for the message that is the JSON object of a reply",
        ),
        (
            format!(
                "service S {{ {} }} {request} message E {{ string a = 1 [(huaweicloud.scm.rest.v1.field) = \
                 {{ json_aliases: [\"error_msg\"] }}]; }}",
                rpc("rpc Do(Request) returns (E)")
            ),
            "t.S/Do: a reply with the key error_msg would be taken for an error",
        ),
        (
            format!("service S {{ {} }} {request}", rpc("rpc Extern(Request) returns (Reply)")),
            "t.S/Extern: the name is reserved in Rust",
        ),
        (format!("service S {{ {plain} }} {request} message Rpc {{ }}"), "t.Rpc: the name is reserved in Rust"),
        (format!("service S {{ {plain} }} {request} message ListCSRs {{ }}"), "t.ListCSRs: prost names it ListCsRs"),
        (format!("service S {{ rpc Do(Request) returns (Reply); }} {request}"), "has no option (google.api.http)"),
    ] {
        let error = read(&definitions).err().unwrap_or_default();
        assert!(error.contains(expected), "{definitions}: {error:?}");
    }
}

#[test]
fn rpcs_written_by_hand_have_no_rest_side() {
    let watch = |rpc: &str, request: &str| {
        let plain = "rpc Do(Request) returns (Reply) { option (google.api.http) = { get: \"/{project_id}\" }; }";
        let definitions = format!(
            "service S {{ {plain} {rpc} }} message Request {{ string project_id = 1; }} message Watched {{ {request} }}"
        );
        read_with(&definitions, &["Watch"])
    };
    let stream = "rpc Watch(Watched) returns (stream Reply) { option idempotency_level = NO_SIDE_EFFECTS; }";
    let api = watch(stream, ROUTED).unwrap();
    assert_eq!((api.methods.len(), api.custom.len()), (1, 1));
    assert_eq!((api.custom[0].read_only, api.custom[0].rules.grant_by_name), (true, false));
    assert!(api.inputs().any(|input| input.name() == "Watched"), "its request is checked");
    for (rpc, request, expected) in [
        ("", ROUTED, "t: has no RPC Watch, which CUSTOM_RPCS in build.rs names"),
        ("rpc Watch(Watched) returns (Reply);", ROUTED, "t.S/Watch: is written by hand, which is for RPCs that stream"),
        ("rpc Watch(stream Watched) returns (stream Reply);", ROUTED, "t.S/Watch: is written by hand, which is for"),
        (stream, "string project_id = 1;", "t.S/Watch: the request needs `string project_id`"),
        (stream, "string cert_id = 1;", "t.S/Watch: the request needs `string project_id`"),
        (
            "rpc Watch(Watched) returns (stream Reply) { option (google.api.http) = { get: \"/v3\" }; }",
            ROUTED,
            "t.S/Watch: has (google.api.http) and is written by hand",
        ),
    ] {
        let error = watch(rpc, request).err().unwrap_or_default();
        assert!(error.contains(expected), "{rpc} {request}: {error:?}");
    }
}
