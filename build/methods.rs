//! Part of `build.rs`: generates the REST side of each RPC, and the tonic services.

use std::fmt::{Result, Write as _};

use heck::ToSnakeCase as _;
use prost_reflect::{Kind, ServiceDescriptor};

use crate::{
    annotations::{Api, Body, Field, PROJECT_ID, Place, RestBinding, full_name, variable, variables},
    messages,
    rust::{Source, ident},
};

/// The path variable that names the certificate of a call.
const CERT_ID: &str = "cert_id";

/// Generates the list of the RPCs, with what a configuration and the callers' permissions depend on.
pub(crate) fn list(api: &Api) -> Source {
    let mut out = String::new();
    writeln!(out, "/// The RPCs.\npub const RPCS: &[Rpc] = &[")?;
    let bound = api.methods.iter().map(|binding| (&binding.method, binding.read_only, &binding.rules));
    let custom = api.custom.iter().map(|rpc| (&rpc.method, rpc.read_only, &rpc.rules));
    let rpcs: Vec<_> = bound.chain(custom).collect();
    for method in api.services.iter().flat_map(ServiceDescriptor::methods) {
        for (method, read_only, rules) in rpcs.iter().filter(|(known, ..)| **known == method) {
            let (name, by_name) = (full_name(method), rules.grant_by_name);
            writeln!(out, "Rpc {{ name: {name:?}, read_only: {read_only}, granted_by_name: {by_name} }},")?;
        }
    }
    writeln!(out, "];")?;
    let streams: Vec<_> =
        api.custom.iter().map(|rpc| format!("{:?}", format!("/{}", full_name(&rpc.method)))).collect();
    writeln!(out, "/// The paths of the RPCs that stream their responses.")?;
    writeln!(out, "pub const STREAMS: &[&str] = &[{}];", streams.join(", "))?;
    Ok(out)
}

/// Generates the `RestMethod` of every RPC, and their list.
pub(crate) fn rest(api: &Api) -> Source {
    let mut out = String::new();
    for (number, binding) in api.methods.iter().enumerate() {
        rest_method(&mut out, api, number, binding)?;
    }
    let names = api.methods.iter().map(|binding| binding.method.name().to_owned());
    let all: Vec<_> = names.map(|name| format!("<{name} as super::RestMethod>::METHOD")).collect();
    writeln!(out, "/// The REST sides of all RPCs.\npub const METHODS: &[&super::Method] = &[{}];", all.join(", "))?;
    Ok(out)
}

/// Generates the tonic services. Every method forwards to `Gateway::call`, or to `Gateway::stream` with the module that
/// `custom` names.
pub(crate) fn services(api: &Api, custom: &[(&str, &str)]) -> Source {
    let mut out = String::new();
    for service in &api.services {
        writeln!(out, "#[tonic::async_trait]\nimpl {} for Gateway {{", server(service, service.name()))?;
        for method in service.methods() {
            let rpc = method.name();
            let custom = custom.iter().find(|(name, _)| *name == rpc);
            let (reply, call) = match custom {
                None => (
                    format!("crate::proto::{}", method.output().name()),
                    format!("self.call::<crate::scm::api::methods::{rpc}>(request).await"),
                ),
                Some((_, module)) => {
                    let open = format!("{module}::open(gateway, {:?}, message, call, draining)", full_name(&method));
                    let call = format!("self.stream(request, |gateway, message, call, draining| {open})");
                    (format!("Self::{rpc}Stream"), call)
                }
            };
            if custom.is_some() {
                writeln!(out, "type {rpc}Stream = Responses<crate::proto::{}>;", method.output().name())?;
            }
            writeln!(
                out,
                "async fn {}(&self, request: tonic::Request<crate::proto::{}>)
                    -> Result<tonic::Response<{reply}>, tonic::Status> {{ {call} }}",
                ident(&rpc.to_snake_case()),
                method.input().name(),
            )?;
        }
        writeln!(out, "}}")?;
    }
    Ok(out)
}

/// Generates the list of the services, and the function that calls one of them by its name.
pub(crate) fn routes(api: &Api) -> Source {
    let mut out = String::new();
    let names: Vec<_> = api.services.iter().map(|service| format!("{:?}", service.full_name())).collect();
    writeln!(out, "/// The full names of the RPC services.\npub const SERVICES: &[&str] = &[{}];", names.join(", "))?;
    writeln!(out, "macro_rules! route {{\n($service:expr, $server:ident, $otherwise:expr) => {{\nmatch $service {{")?;
    for service in &api.services {
        let server = server(service, &format!("{}Server", service.name()));
        writeln!(out, "Some({:?}) => $server!({server}<_>),", service.full_name())?;
    }
    writeln!(out, "_ => $otherwise,\n}}\n}};\n}}")?;
    Ok(out)
}

/// Returns the path of an item in the tonic module of a service.
fn server(service: &ServiceDescriptor, item: &str) -> String {
    format!("crate::grpc::service::{}_server::{item}", service.name().to_snake_case())
}

fn rest_method(out: &mut String, api: &Api, number: usize, binding: &RestBinding) -> Result {
    let RestBinding { method, verb, template, idempotent, rules, .. } = binding;
    let is_secret =
        |message| api.reachable([message].into_iter()).iter().flat_map(|m| &m.fields).any(|field| field.secret);
    let (name, rpc) = (method.name(), binding.rpc());
    let (input, output) = (method.input(), method.output());
    let request = api.message(&input);
    let fields = || request.into_iter().flat_map(|message| &message.fields);
    writeln!(out, "/// `{rpc}`: `{verb} {template}`.\n#[derive(Debug)]\npub enum {name} {{}}")?;
    writeln!(out, "impl super::RestMethod for {name} {{")?;
    writeln!(out, "type Request = crate::proto::{}; type Reply = crate::proto::{};", input.name(), output.name())?;
    writeln!(out, "const RPC: &'static str = \"{rpc}\";")?;
    writeln!(
        out,
        "const METHOD: &'static super::Method = &super::Method {{
            number: {number}, http: http::Method::{verb}, template: \"{template}\", span: \"{verb} {template}\",
            idempotent: {idempotent}, names_certificate: {}, secret_request: {}, success_statuses: &{:?}, empty_reply: {},
            decode: super::decode::decode::<Self>, empty: || Box::new(Self::Reply::default()),
        }};",
        variables(template).contains(&CERT_ID),
        is_secret(input.clone()),
        rules.success_statuses,
        rules.empty_reply,
    )?;
    writeln!(out, "fn project_id(request: &mut Self::Request) -> &mut String {{ &mut request.project_id }}")?;
    if let Some(id) = variables(template).into_iter().rfind(|variable| *variable != PROJECT_ID) {
        writeln!(
            out,
            "fn resource(request: &Self::Request) -> Option<(&'static str, &str)> {{ Some((\"{id}\", &request.{})) }}",
            ident(id),
        )?;
    }
    let variables = if variables(template).is_empty() { "_" } else { "request" };
    writeln!(out, "fn path({variables}: &Self::Request, path: &mut super::PathBuilder) {{")?;
    for segment in template.split('/').skip(1) {
        match variable(segment) {
            Some(variable) => writeln!(out, "path.variable(&request.{});", ident(variable))?,
            None => writeln!(out, "path.literal(\"/{segment}\");")?,
        }
    }
    writeln!(out, "}}")?;
    let query: Vec<_> = fields().filter(|field| binding.place(field) == Place::Query).collect();
    if !query.is_empty() {
        writeln!(out, "fn query(request: &Self::Request, query: &mut super::QueryBuilder) {{")?;
        for field in query {
            parameter(out, api, "request", "", field)?;
        }
        writeln!(out, "}}")?;
    }
    let body: Vec<_> = fields().filter(|field| binding.place(field) == Place::Body).collect();
    let json_body = if is_secret(input.clone()) { "secret_json_body" } else { "json_body" };
    match (&binding.body, body.first()) {
        (Body::None, _) => {}
        (Body::Field(_), Some(field)) if field.is_single() => {
            let field = ident(field.name());
            let body = format!("request.{field}.as_ref().map(super::{json_body})");
            writeln!(out, "fn body(request: &Self::Request) -> Option<Vec<u8>> {{ {body} }}")?;
        }
        (Body::Field(_), field) => {
            let field = field.map(|field| ident(field.name())).unwrap_or_default();
            let body = format!("Some(super::{json_body}(&request.{field}))");
            writeln!(out, "fn body(request: &Self::Request) -> Option<Vec<u8>> {{ {body} }}")?;
        }
        (Body::All, _) => {
            writeln!(
                out,
                "fn body(request: &Self::Request) -> Option<Vec<u8>> {{
                    struct Body<'a>(&'a crate::proto::{});
                    impl crate::json::WriteJson for Body<'_> {{",
                input.name()
            )?;
            messages::write_json(out, "self.0", &body)?;
            writeln!(out, "}}\nSome(super::{json_body}(&Body(request)))\n}}")?;
        }
    }
    writeln!(out, "}}")
}

/// Generates the parameters of a field, those of a message with the name of its field before theirs.
fn parameter(out: &mut String, api: &Api, value: &str, prefix: &str, field: &Field) -> Result {
    let (key, rust) = (format!("{prefix}{}", field.key), ident(field.name()));
    match field.kind() {
        Kind::Message(inner) => {
            writeln!(out, "if let Some(inner) = &{value}.{rust} {{")?;
            for field in api.message(&inner).into_iter().flat_map(|message| &message.fields) {
                parameter(out, api, "inner", &format!("{key}."), field)?;
            }
            writeln!(out, "}}")
        }
        _ if field.rules.joined_by.is_some() => {
            let separator = field.rules.joined_by.as_deref().unwrap_or_default();
            let add = format!("query.add({key:?}, &{value}.{rust}.join({separator:?}));");
            let is_sent =
                if field.rules.send_empty { "true".to_owned() } else { format!("!{value}.{rust}.is_empty()") };
            writeln!(out, "if {is_sent} {{ {add} }}")
        }
        _ if field.is_option() => {
            writeln!(out, "if let Some(value) = &{value}.{rust} {{ query.add({key:?}, value); }}")
        }
        _ if !field.is_single() => writeln!(out, "for value in &{value}.{rust} {{ query.add({key:?}, value); }}"),
        _ => writeln!(out, "query.add({key:?}, &{value}.{rust});"),
    }
}
