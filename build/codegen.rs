//! Generates Rust from the annotations, in addition to what tonic-prost-build generates from the messages.

use std::{
    collections::BTreeSet,
    fmt::{Result, Write as _},
};

use heck::ToSnakeCase as _;
use prost_reflect::{Kind, MessageDescriptor};
use tonic_prost_build::Builder;

use crate::annotations::{ACKNOWLEDGEMENT, Api, RestBinding, is_option, is_single, variable, variables};

/// The path variable that names the certificate of a call.
const CERT_ID: &str = "cert_id";

/// Generated source, or a write error that cannot happen in memory.
type Source = std::result::Result<String, std::fmt::Error>;

/// Adds serde attributes to the messages.
///
/// JSON keys are the proto's field names. A list of strings is one string joined by `;`. An unset `optional` field is
/// left out, and `null` is read as unset.
pub(crate) fn json_attributes(mut builder: Builder, api: &Api) -> Builder {
    for message in &api.messages {
        let name = message.full_name();
        builder = builder
            .message_attribute(name, "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(name, "#[serde(default)]");
        for field in message.fields() {
            let attribute = if !is_single(&field) && field.kind() == Kind::String {
                "#[serde(with = \"crate::proto::json::joined\")]"
            } else if is_option(&field) {
                "#[serde(skip_serializing_if = \"Option::is_none\")]"
            } else {
                "#[serde(deserialize_with = \"crate::proto::json::nullable\")]"
            };
            builder = builder.field_attribute(format!("{name}.{}", field.name()), attribute);
        }
    }
    builder
}

/// Generates the names of the RPCs and a `Debug` for each message. Messages hold personal data, so their `Debug` shows
/// only the type.
pub(crate) fn messages(api: &Api) -> Source {
    let mut out = String::new();
    for message in &api.messages {
        let name = message.name();
        writeln!(
            out,
            "impl std::fmt::Debug for {name} {{
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"{name}([REDACTED])\") }}
            }}"
        )?;
    }
    let names: Vec<_> = api.methods.iter().map(|method| format!("\"{}\"", method.rpc())).collect();
    writeln!(out, "/// The full names of the RPCs.\npub const RPCS: &[&str] = &[{}];", names.join(", "))?;
    Ok(out)
}

/// Generates the `Check` of every request message except `custom`.
pub(crate) fn checks(api: &Api, custom: &[&str]) -> Source {
    let mut out = String::new();
    for request in requests(&api.methods).iter().filter(|request| !custom.contains(&request.name())) {
        check(&mut out, request, &api.methods)?;
    }
    Ok(out)
}

/// Generates the `RestMethod` of every RPC, and their list. `wire_types` names the replies that are read through a type of their own.
pub(crate) fn methods(api: &Api, wire_types: &[(&str, &str)]) -> Source {
    let mut out = String::new();
    let methods = &api.methods;
    for method in methods {
        rest_method(&mut out, method, wire_types)?;
    }
    let all: Vec<_> = methods.iter().map(|m| format!("<{} as super::RestMethod>::METHOD", m.method.name())).collect();
    writeln!(out, "/// The REST sides of all RPCs.\npub const METHODS: &[&super::Method] = &[{}];", all.join(", "))?;
    Ok(out)
}

/// Generates the tonic service: every method forwards to `Gateway::call`.
pub(crate) fn service(api: &Api) -> Source {
    let mut out = String::new();
    let (name, module) = (api.service.name(), format!("{}_server", api.service.name().to_snake_case()));
    writeln!(out, "#[tonic::async_trait]\nimpl crate::grpc::service::{module}::{name} for Gateway {{")?;
    for method in api.service.methods() {
        let rpc = method.name();
        let input = method.input();
        let output = method.output();
        writeln!(
            out,
            "async fn {}(&self, request: tonic::Request<crate::proto::{}>)
                -> Result<tonic::Response<crate::proto::{}>, tonic::Status> {{
                self.call::<crate::scm::api::methods::{rpc}>(request).await
            }}",
            ident(&rpc.to_snake_case()),
            input.name(),
            output.name(),
        )?;
    }
    writeln!(out, "}}")?;
    Ok(out)
}

/// Returns the request messages and every message inside them, each once.
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

/// Generates the checks of one message: path variables are ids, strings hold no control characters, a body is present.
fn check(out: &mut String, message: &MessageDescriptor, methods: &[RestBinding]) -> Result {
    let rest = methods.iter().find(|m| m.method.input() == *message);
    writeln!(out, "impl Check for crate::proto::{} {{", message.name())?;
    writeln!(out, "#[allow(unused_variables, reason = \"a message without strings has no checks\")]")?;
    writeln!(out, "fn check(&mut self, at: &str, found: &mut Violations) {{")?;
    for field in message.fields() {
        let (name, rust) = (field.name(), ident(field.name()));
        let in_path = rest.is_some_and(|r| variables(&r.template).contains(&name));
        let is_body = rest.is_some_and(|r| r.body.as_deref() == Some(name));
        match field.kind() {
            Kind::String if in_path => writeln!(out, "found.id(at, \"{name}\", &self.{rust});")?,
            Kind::String if !is_single(&field) => writeln!(out, "found.texts(at, \"{name}\", &self.{rust});")?,
            Kind::String if is_option(&field) => {
                writeln!(out, "if let Some(text) = &self.{rust} {{ found.text(at, \"{name}\", text); }}")?;
            }
            Kind::String => writeln!(out, "found.text(at, \"{name}\", &self.{rust});")?,
            Kind::Message(_) if is_body => writeln!(out, "found.required(at, \"{name}\", self.{rust}.as_mut());")?,
            Kind::Message(_) if is_single(&field) => {
                writeln!(out, "found.optional(at, \"{name}\", self.{rust}.as_mut());")?;
            }
            Kind::Message(_) => writeln!(out, "found.each(at, \"{name}\", &mut self.{rust});")?,
            _ => {}
        }
    }
    writeln!(out, "}}\n}}")
}

fn rest_method(out: &mut String, binding: &RestBinding, wire_types: &[(&str, &str)]) -> Result {
    let RestBinding { method, verb, template, body, idempotent } = binding;
    let name = method.name();
    let rpc = binding.rpc();
    let reply = method.output();
    let reply = reply.name();
    let wire = wire_types.iter().find(|(message, _)| *message == reply);
    let wire = wire.map_or_else(|| format!("crate::proto::{reply}"), |(_, wire)| (*wire).to_owned());
    writeln!(out, "/// `{rpc}`: `{verb} {template}`.\n#[derive(Debug)]\npub enum {name} {{}}")?;
    writeln!(out, "impl super::RestMethod for {name} {{")?;
    writeln!(out, "type Request = crate::proto::{};", method.input().name())?;
    writeln!(out, "type Reply = crate::proto::{reply}; type Wire = {wire};")?;
    writeln!(out, "const RPC: &'static str = \"{rpc}\";")?;
    writeln!(out, "const METHOD: &'static super::Method = &super::Method {{")?;
    writeln!(out, "http: http::Method::{verb}, template: \"{template}\", span: \"{verb} {template}\",")?;
    writeln!(out, "idempotent: {idempotent}, decode: super::decode::decode::<Self>,")?;
    writeln!(out, "}};")?;
    writeln!(out, "fn project_id(request: &mut Self::Request) -> &mut String {{ &mut request.project_id }}")?;
    let (request, cert_id) = if variables(template).contains(&CERT_ID) {
        ("request", format!("Some(&request.{CERT_ID})"))
    } else {
        ("_", "None".to_owned())
    };
    writeln!(out, "fn cert_id({request}: &Self::Request) -> Option<&str> {{ {cert_id} }}")?;
    writeln!(out, "fn path(request: &Self::Request, path: &mut super::PathBuilder) {{")?;
    for segment in template.split('/').skip(1) {
        match variable(segment) {
            Some(variable) => writeln!(out, "path.variable(&request.{});", ident(variable))?,
            None => writeln!(out, "path.literal(\"/{segment}\");")?,
        }
    }
    writeln!(out, "}}")?;
    let (request, json) = match body {
        Some(body) => ("request", format!("request.{}.as_ref().map(super::json_body)", ident(body))),
        None => ("_", "None".to_owned()),
    };
    writeln!(out, "fn body({request}: &Self::Request) -> Option<Vec<u8>> {{ {json} }}")?;
    let (reply, acknowledged) = match method.output().get_field_by_name(ACKNOWLEDGEMENT) {
        Some(_) => ("reply", format!("reply.{ACKNOWLEDGEMENT} == \"success\"")),
        None => ("_", "true".to_owned()),
    };
    writeln!(out, "fn acknowledged({reply}: &Self::Reply) -> bool {{ {acknowledged} }}\n}}")
}

/// Returns a field's name in Rust, as prost writes it.
fn ident(name: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "as", "async", "await", "box", "break", "const", "continue", "do", "dyn", "else", "enum", "extern", "false",
        "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
        "override", "priv", "pub", "ref", "return", "static", "struct", "trait", "true", "try", "type", "typeof",
        "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}
