//! Prints the Rust that binds `proto/` to the REST side, from the standard annotations alone.
//!
//! `protox` compiles the proto without `protoc`; `tonic-prost-build` prints messages and the tonic service; this file
//! adds what the annotations say: per message its JSON attributes and checks, per RPC one `impl RestMethod` and one
//! line of the service. What it cannot express it refuses with a sentence, so a proto edit never half-works.

use std::{collections::BTreeSet, env, error::Error, fmt::Write as _, fs, path::PathBuf};

use heck::ToSnakeCase as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

const ROOT: &str = "proto";
const FILE: &str = "huaweicloud/scm/v1/certificate_service.proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

/// Messages whose fields have rules of their own: their `Check` is written by hand, in `src/validate`.
const CHECKED_BY_HAND: &[&str] = &["CertificateInfo"];

/// Replies that the vendor spells in other words than our proto: message, and the type that reads the vendor's.
const SPELLED_BY_VENDOR: &[(&str, &str)] = &[("ReadInfoResponse", "crate::rest::spelling::SavedInfo")];

/// A field of this name in a reply is the vendor's acknowledgement and has to be `success`.
const ACKNOWLEDGEMENT: &str = "request_info";

#[allow(clippy::disallowed_methods, reason = "cargo speaks to a build script through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files([FILE])?;
    // The encoded set keeps extensions, the typed one drops them.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptor_set.bin"), &encoded)?;

    let pool = DescriptorPool::decode(encoded.as_slice())?;
    let messages: Vec<_> = pool.all_messages().filter(|m| m.package_name() == PACKAGE).collect();
    messages.iter().try_for_each(refuse_what_is_not_plain)?;
    let methods: Vec<_> = pool
        .services()
        .filter(|s| s.package_name() == PACKAGE)
        .flat_map(|s| s.methods().collect::<Vec<_>>())
        .map(|m| RestBinding::read(&pool, m))
        .collect::<Result<_, _>>()?;

    let mut own = compiler.file_descriptor_set();
    own.file.retain(|f| f.package() == PACKAGE); // else Google's types are printed too
    json_attributes(tonic_prost_build::configure(), &messages)
        .build_transport(false)
        .skip_debug(["."])
        .compile_fds(own)?;
    fs::write(out.join("binding.rs"), binding(&pool, &messages, &methods)?)?;
    Ok(())
}

/// What has no JSON that everybody would expect here is refused, so that nobody finds out at run time.
fn refuse_what_is_not_plain(message: &MessageDescriptor) -> Result<(), String> {
    let refuse = |name: &str, why: &str| Err(format!("{name}: {why}"));
    if message.parent_message().is_some() {
        return refuse(
            message.full_name(),
            "nested messages and maps are not supported: put the message beside the others",
        );
    }
    for field in message.fields() {
        let why = match field.kind() {
            _ if field.is_map() => "maps are not supported",
            _ if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => "oneof is not supported",
            Kind::Enum(_) => "enums are not supported: use a string and check its values",
            Kind::Bytes => "bytes are not supported: use a string",
            Kind::Message(inner) if inner.package_name() != PACKAGE => "messages of other packages are not supported",
            _ => continue,
        };
        return refuse(field.full_name(), why);
    }
    Ok(())
}

/// JSON keys are the proto's field names; a list of strings is one string joined by `;`; an unset `optional` field is
/// left out; `null` reads as unset.
fn json_attributes(
    mut builder: tonic_prost_build::Builder,
    messages: &[MessageDescriptor],
) -> tonic_prost_build::Builder {
    for message in messages {
        let name = message.full_name();
        builder = builder
            .message_attribute(name, "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(name, "#[serde(default)]");
        if let Some((_, spelling)) = SPELLED_BY_VENDOR.iter().find(|(m, _)| *m == message.name()) {
            builder = builder.message_attribute(name, format!("#[serde(from = \"{spelling}\")]"));
        }
        for field in message.fields() {
            let attribute = if field.is_list() && field.kind() == Kind::String {
                "#[serde(with = \"crate::rest::json::joined\")]"
            } else if optional(&field) {
                "#[serde(skip_serializing_if = \"Option::is_none\")]"
            } else {
                "#[serde(deserialize_with = \"crate::rest::json::nullable\")]"
            };
            builder = builder.field_attribute(format!("{name}.{}", field.name()), attribute);
        }
    }
    builder
}

/// Whether prost holds the field as an `Option`.
fn optional(field: &FieldDescriptor) -> bool {
    field.cardinality() == Cardinality::Optional && field.supports_presence()
}

/// What the annotations of one RPC say.
struct RestBinding {
    method: MethodDescriptor,
    verb: &'static str,
    template: String,
    body: Option<String>,
    idempotent: bool,
}

impl RestBinding {
    fn read(pool: &DescriptorPool, method: MethodDescriptor) -> Result<Self, String> {
        let rpc = method.full_name().to_owned();
        let refuse = |why: &str| Err(format!("{rpc}: {why}"));
        if method.is_client_streaming() || method.is_server_streaming() {
            return refuse("streams have no REST side");
        }
        let Some(rule) = http_rule(pool, &method) else {
            return refuse("has no option (google.api.http)");
        };
        let Some((verb, template)) = ["get", "put", "post", "delete", "patch"]
            .into_iter()
            .find_map(|verb| rule.has_field_by_name(verb).then(|| (verb, text(&rule, verb))))
        else {
            return refuse("(google.api.http) names no path");
        };
        if rule.has_field_by_name("response_body") {
            return refuse("response_body is not supported: name the fields in the reply");
        }
        let body = Some(text(&rule, "body")).filter(|body| !body.is_empty());
        let binding = Self { verb, template, body, idempotent: idempotent(&method), method };
        match binding.unbound() {
            Some(why) => refuse(&why),
            None => Ok(binding),
        }
    }

    /// The full name, `package.Service/Method`.
    fn rpc(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// Why the request cannot be sent as annotated, if so. Every field has exactly one place to go.
    fn unbound(&self) -> Option<String> {
        let variables = variables(&self.template);
        let input = self.method.input();
        let is = |name: &str, fits: fn(&FieldDescriptor) -> bool| {
            input.get_field_by_name(name).is_some_and(|f| !f.is_list() && !f.is_map() && fits(&f))
        };
        if !variables.contains(&"project_id") {
            return Some("the path needs {project_id}: the project decides whose key signs".to_owned());
        }
        if let Some(variable) = variables.iter().find(|v| !is(v, |f| f.kind() == Kind::String && !optional(f))) {
            return Some(format!("path variable {{{variable}}} is no plain string field of the request"));
        }
        if let Some(body) = self.body.as_deref().filter(|b| !is(b, |f| f.kind().as_message().is_some())) {
            return Some(format!("body \"{body}\" has to name a message field of the request"));
        }
        input
            .fields()
            .find(|f| !variables.contains(&f.name()) && self.body.as_deref() != Some(f.name()))
            .map(|f| format!("field {} is bound to neither path nor body", f.name()))
    }
}

fn http_rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name("google.api.http")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    match options.get_extension(&extension).into_owned() {
        Value::Message(rule) => Some(rule),
        _ => None,
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Unset means that an attempt whose outcome is unknown may not be repeated.
fn idempotent(method: &MethodDescriptor) -> bool {
    method.method_descriptor_proto().options.as_ref().is_some_and(|options| options.idempotency_level.unwrap_or(0) != 0)
}

/// The names in braces of a path template.
fn variables(template: &str) -> Vec<&str> {
    template.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect()
}

/// Everything this file prints beside what tonic-prost-build does.
fn binding(
    pool: &DescriptorPool,
    messages: &[MessageDescriptor],
    methods: &[RestBinding],
) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    for message in messages {
        redacted_debug(&mut out, message)?;
    }
    for request in requests(methods) {
        if !CHECKED_BY_HAND.contains(&request.name()) {
            check(&mut out, &request, methods)?;
        }
    }
    for method in methods {
        rest_method(&mut out, method)?;
    }
    for service in pool.services().filter(|s| s.package_name() == PACKAGE) {
        tonic_service(&mut out, &service)?;
    }
    let names: Vec<_> = methods.iter().map(|m| format!("\"{}\"", m.rpc())).collect();
    writeln!(out, "/// The full names of the RPCs.\npub const RPCS: &[&str] = &[{}];", names.join(", "))?;
    Ok(out)
}

/// Messages hold personal data: their `Debug` shows the type alone.
fn redacted_debug(out: &mut String, message: &MessageDescriptor) -> std::fmt::Result {
    let name = message.name();
    writeln!(
        out,
        "impl std::fmt::Debug for {name} {{
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"{name}([REDACTED])\") }}
        }}"
    )
}

/// The request messages and every message inside them, each once.
fn requests(methods: &[RestBinding]) -> Vec<MessageDescriptor> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut open: Vec<_> = methods.iter().map(|m| m.method.input()).collect();
    while let Some(message) = open.pop() {
        if seen.insert(message.full_name().to_owned()) {
            open.extend(message.fields().filter_map(|f| f.kind().as_message().cloned()));
            found.push(message);
        }
    }
    found
}

/// The checks that hold for every message: path variables are ids, strings hold no control characters, a body is there.
fn check(out: &mut String, message: &MessageDescriptor, methods: &[RestBinding]) -> std::fmt::Result {
    let rest = methods.iter().find(|m| m.method.input() == *message);
    let name = message.name();
    writeln!(out, "impl crate::validate::Check for {name} {{")?;
    writeln!(out, "fn check(&mut self, at: &str, found: &mut crate::validate::Violations) {{")?;
    for field in message.fields() {
        let (name, rust) = (field.name(), ident(field.name()));
        let in_path = rest.is_some_and(|r| variables(&r.template).contains(&name));
        let is_body = rest.is_some_and(|r| r.body.as_deref() == Some(name));
        match field.kind() {
            Kind::String if in_path => writeln!(out, "found.id(at, \"{name}\", &self.{rust});")?,
            Kind::String if optional(&field) || field.is_list() => {
                writeln!(out, "for text in &self.{rust} {{ found.text(at, \"{name}\", text); }}")?;
            }
            Kind::String => writeln!(out, "found.text(at, \"{name}\", &self.{rust});")?,
            Kind::Message(_) if is_body => {
                writeln!(out, "found.required(at, \"{name}\", self.{rust}.as_mut());")?;
            }
            Kind::Message(_) => writeln!(out, "found.each(at, \"{name}\", &mut self.{rust});")?,
            _ => {}
        }
    }
    writeln!(out, "}}\n}}")
}

fn rest_method(out: &mut String, binding: &RestBinding) -> std::fmt::Result {
    let RestBinding { method, verb, template, body, idempotent } = binding;
    let (name, rpc) = (method.name(), binding.rpc());
    let verb = verb.to_uppercase();
    writeln!(out, "/// `{rpc}`: `{verb} {template}`.\n#[derive(Debug)]\npub enum {name} {{}}")?;
    writeln!(out, "impl crate::rest::RestMethod for {name} {{")?;
    writeln!(out, "type Request = {}; type Reply = {};", method.input().name(), method.output().name())?;
    writeln!(out, "const RPC: &'static str = \"{rpc}\"; const HTTP: http::Method = http::Method::{verb};")?;
    writeln!(out, "const TEMPLATE: &'static str = \"{template}\"; const SPAN: &'static str = \"{verb} {template}\";")?;
    writeln!(out, "const IDEMPOTENT: bool = {idempotent};")?;
    writeln!(out, "fn project_id(request: &mut Self::Request) -> &mut String {{ &mut request.project_id }}")?;
    writeln!(out, "fn path(request: &Self::Request, path: &mut crate::rest::PathBuilder) {{")?;
    for segment in template.split('/').skip(1) {
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(variable) => writeln!(out, "path.variable(&request.{});", ident(variable))?,
            None => writeln!(out, "path.literal(\"/{segment}\");")?,
        }
    }
    writeln!(out, "}}")?;
    let json = body
        .as_ref()
        .map_or("None".to_owned(), |b| format!("request.{}.as_ref().map(crate::rest::json::body)", ident(b)));
    let unused = if body.is_none() { "_" } else { "" };
    writeln!(out, "fn body({unused}request: &Self::Request) -> Option<Vec<u8>> {{ {json} }}")?;
    let acknowledges = method.output().get_field_by_name(ACKNOWLEDGEMENT).is_some();
    let (unused, acknowledged) =
        if acknowledges { ("", format!("reply.{ACKNOWLEDGEMENT} == \"success\"")) } else { ("_", "true".to_owned()) };
    writeln!(out, "fn acknowledged({unused}reply: &Self::Reply) -> bool {{ {acknowledged} }}")?;
    writeln!(out, "}}")
}

/// The tonic service: every method is the same line.
fn tonic_service(out: &mut String, service: &ServiceDescriptor) -> std::fmt::Result {
    let (name, module) = (service.name(), format!("{}_server", service.name().to_snake_case()));
    writeln!(out, "#[tonic::async_trait]\nimpl {module}::{name} for crate::service::Gateway {{")?;
    for method in service.methods() {
        let (rpc, input, output) = (method.name(), method.input(), method.output());
        writeln!(
            out,
            "async fn {}(&self, request: tonic::Request<{}>) -> Result<tonic::Response<{}>, tonic::Status> {{
                self.call::<{rpc}>(request).await
            }}",
            rpc.to_snake_case(),
            input.name(),
            output.name(),
        )?;
    }
    writeln!(out, "}}")
}

/// A field's name in Rust, as prost writes it.
fn ident(name: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "as", "async", "await", "box", "break", "const", "continue", "do", "dyn", "else", "enum", "extern", "false",
        "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
        "override", "priv", "pub", "ref", "return", "static", "struct", "trait", "true", "try", "type", "typeof",
        "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}
