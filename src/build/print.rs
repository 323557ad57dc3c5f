//! Part of `build.rs`: prints what the annotations say, beside what tonic-prost-build does.

use std::{
    collections::BTreeSet,
    fmt::{Result, Write as _},
};

use heck::ToSnakeCase as _;
use prost_reflect::{Kind, MessageDescriptor};
use tonic_prost_build::Builder;

use crate::annotations::{ACKNOWLEDGEMENT, Api, RestBinding, is_option, is_single, variable, variables};

/// The path variable that names the certificate that a call is about.
const CERT_ID: &str = "cert_id";

/// JSON keys are the proto's field names; a list of strings is one string joined by `;`; an unset `optional` field is
/// left out; `null` reads as unset.
pub(crate) fn json_attributes(mut builder: Builder, api: &Api, spelled_by_vendor: &[(&str, &str)]) -> Builder {
    for message in &api.messages {
        let name = message.full_name();
        builder = builder
            .message_attribute(name, "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(name, "#[serde(default)]");
        if let Some((_, spelling)) = spelled_by_vendor.iter().find(|(m, _)| *m == message.name()) {
            builder = builder.message_attribute(name, format!("#[serde(from = \"{spelling}\")]"));
        }
        for field in message.fields() {
            let attribute = if !is_single(&field) && field.kind() == Kind::String {
                "#[serde(with = \"crate::rest::json::joined\")]"
            } else if is_option(&field) {
                "#[serde(skip_serializing_if = \"Option::is_none\")]"
            } else {
                "#[serde(deserialize_with = \"crate::rest::json::nullable\")]"
            };
            builder = builder.field_attribute(format!("{name}.{}", field.name()), attribute);
        }
    }
    builder
}

/// `Debug` and checks of the messages, the REST side of the RPCs, and the tonic service.
pub(crate) fn binding(api: &Api, checked_by_hand: &[&str]) -> std::result::Result<String, std::fmt::Error> {
    let mut out = String::new();
    for message in &api.messages {
        redacted_debug(&mut out, message)?;
    }
    for request in requests(&api.methods) {
        if !checked_by_hand.contains(&request.name()) {
            check(&mut out, &request, &api.methods)?;
        }
    }
    for method in &api.methods {
        rest_method(&mut out, method)?;
    }
    let names: Vec<_> =
        api.methods.iter().map(|m| format!("<{} as crate::rest::RestMethod>::RPC", m.method.name())).collect();
    writeln!(out, "/// The full names of the RPCs.\npub const RPCS: &[&str] = &[{}];", names.join(", "))?;
    tonic_service(&mut out, api)?;
    Ok(out)
}

/// Messages hold personal data: their `Debug` shows the type alone.
fn redacted_debug(out: &mut String, message: &MessageDescriptor) -> Result {
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
fn check(out: &mut String, message: &MessageDescriptor, methods: &[RestBinding]) -> Result {
    let rest = methods.iter().find(|m| m.method.input() == *message);
    writeln!(out, "impl crate::validate::Check for {} {{", message.name())?;
    writeln!(out, "fn check(&mut self, at: &str, found: &mut crate::validate::Violations) {{")?;
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

fn rest_method(out: &mut String, binding: &RestBinding) -> Result {
    let RestBinding { method, verb, template, body, idempotent } = binding;
    let (name, rpc) = (method.name(), binding.rpc());
    writeln!(out, "/// `{rpc}`: `{verb} {template}`.\n#[derive(Debug)]\npub enum {name} {{}}")?;
    writeln!(out, "impl crate::rest::RestMethod for {name} {{")?;
    writeln!(out, "type Request = {}; type Reply = {};", method.input().name(), method.output().name())?;
    writeln!(out, "const RPC: &'static str = \"{rpc}\"; const HTTP: http::Method = http::Method::{verb};")?;
    writeln!(out, "const TEMPLATE: &'static str = \"{template}\"; const SPAN: &'static str = \"{verb} {template}\";")?;
    writeln!(out, "const IDEMPOTENT: bool = {idempotent};")?;
    writeln!(out, "fn project_id(request: &mut Self::Request) -> &mut String {{ &mut request.project_id }}")?;
    let (request, cert_id) = match variables(template).contains(&CERT_ID) {
        true => ("request", format!("Some(&request.{CERT_ID})")),
        false => ("_", "None".to_owned()),
    };
    writeln!(out, "fn cert_id({request}: &Self::Request) -> Option<&str> {{ {cert_id} }}")?;
    writeln!(out, "fn path(request: &Self::Request, path: &mut crate::rest::PathBuilder) {{")?;
    for segment in template.split('/').skip(1) {
        match variable(segment) {
            Some(variable) => writeln!(out, "path.variable(&request.{});", ident(variable))?,
            None => writeln!(out, "path.literal(\"/{segment}\");")?,
        }
    }
    writeln!(out, "}}")?;
    let (request, json) = match body {
        Some(body) => ("request", format!("request.{}.as_ref().map(crate::rest::json::body)", ident(body))),
        None => ("_", "None".to_owned()),
    };
    writeln!(out, "fn body({request}: &Self::Request) -> Option<Vec<u8>> {{ {json} }}")?;
    let (reply, acknowledged) = match method.output().get_field_by_name(ACKNOWLEDGEMENT) {
        Some(_) => ("reply", format!("reply.{ACKNOWLEDGEMENT} == \"success\"")),
        None => ("_", "true".to_owned()),
    };
    writeln!(out, "fn acknowledged({reply}: &Self::Reply) -> bool {{ {acknowledged} }}\n}}")
}

/// The tonic service: every method is the same line.
fn tonic_service(out: &mut String, api: &Api) -> Result {
    let (name, module) = (api.service.name(), format!("{}_server", api.service.name().to_snake_case()));
    writeln!(out, "#[tonic::async_trait]\nimpl {module}::{name} for crate::service::Gateway {{")?;
    for method in api.service.methods() {
        let (rpc, input, output) = (method.name(), method.input(), method.output());
        writeln!(
            out,
            "async fn {}(&self, request: tonic::Request<{}>) -> Result<tonic::Response<{}>, tonic::Status> {{
                self.call::<{rpc}>(request).await
            }}",
            ident(&rpc.to_snake_case()),
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
