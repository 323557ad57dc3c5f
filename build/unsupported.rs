//! Part of `build.rs`: says which names, fields and annotations the gateway cannot honor, each in a sentence.

use heck::ToSnakeCase as _;
use prost_reflect::{FieldDescriptor, Kind, MethodDescriptor, ServiceDescriptor};

use crate::{
    annotations::{
        Api, Body, CustomRpc, Field, Message, PROJECT_ID, Place, RestBinding, http_rule, variable, variables,
    },
    options::is_number,
};

/// The problem of an RPC whose project is not known.
const NO_PROJECT: &str = "the request needs `string project_id`, which selects the credentials: in the path, or with the \
                          option routing_only";

/// Keywords that prost does not write as raw identifiers.
const RESERVED_NAMES: [&str; 5] = ["self", "Self", "super", "crate", "extern"];

/// The keys of an error body. A reply that used one of them would be taken for an error.
const ERROR_KEYS: [&str; 6] = ["error_code", "errorCode", "error_msg", "errorMsg", "error", "code"];

/// Returns why a field is not supported, or `None` if it is.
pub(crate) fn field_problem(field: &FieldDescriptor, secret: bool) -> Option<&'static str> {
    Some(match field.kind() {
        _ if RESERVED_NAMES.contains(&field.name()) => "the name is reserved in Rust: choose another",
        _ if field.json_name().contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) => {
            "a json_name has no quotation mark, backslash or control character"
        }
        _ if field.is_map() => "maps are not supported",
        _ if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => "oneof is not supported",
        kind if secret && kind != Kind::String => "debug_redact is for strings",
        Kind::Message(inner) if inner.package_name() != field.parent_message().package_name() => {
            "messages of other packages are not supported"
        }
        Kind::String | Kind::Message(_) | Kind::Bool => return None,
        kind if is_number(&kind) => return None,
        Kind::Enum(_) => "enums are not supported: use a string and check its values",
        _ => "this type is not supported: use string, bool, int32, int64 or a message",
    })
}

impl Api {
    /// Returns why no RPC can have the name of this one, or `None` if it can.
    fn name_problem(&self, method: &MethodDescriptor) -> Option<String> {
        let name = method.name();
        if self.messages.iter().any(|message| message.name() == name) {
            return Some("the RPC has the same name as a message".to_owned());
        }
        if RESERVED_NAMES.contains(&name.to_snake_case().as_str()) {
            return Some("the name is reserved in Rust: choose another".to_owned());
        }
        let all = self.services.iter().flat_map(ServiceDescriptor::methods);
        let is_twice = all.filter(|other| other.name() == name).count() > 1;
        is_twice.then(|| "the name is there twice, and callers are granted methods by name".to_owned())
    }
}

impl RestBinding {
    /// Returns why the RPC cannot be served as annotated, or `None` if it can.
    pub(crate) fn problem(&self, api: &Api) -> Option<String> {
        if self.method.is_client_streaming() || self.method.is_server_streaming() {
            return Some("streams have no REST side: write the RPC by hand, and name it in CUSTOM_RPCS".to_owned());
        }
        if let Some(problem) = api.name_problem(&self.method) {
            return Some(problem);
        }
        let (input, output) = (self.method.input(), self.method.output());
        let (Some(request), Some(reply)) = (api.message(&input), api.message(&output)) else {
            return Some("messages of other packages are not supported".to_owned());
        };
        self.path_problem(request)
            .or_else(|| self.request_problem(request, api))
            .or_else(|| self.request_rules_problem(request, api))
            .or_else(|| self.reply_problem(reply, api))
    }

    fn path_problem(&self, request: &Message) -> Option<String> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let literal = |segment: &str| !segment.is_empty() && segment.bytes().all(unreserved);
        let Some(path) = self.template.strip_prefix('/') else {
            return Some("the path begins with a slash".to_owned());
        };
        if let Some(segment) = path.split('/').find(|segment| variable(segment).is_none() && !literal(segment)) {
            return Some(format!("path segment \"{segment}\" is neither {{variable}} nor unreserved characters"));
        }
        let variables = variables(&self.template);
        if let Some(variable) = variables.iter().find(|v| !request.field(v).is_some_and(is_plain_text)) {
            return Some(format!(
                "path variable {{{variable}}} has to name a string field of the request that is not optional"
            ));
        }
        let bound = variables.iter().filter_map(|variable| request.field(variable));
        if let Some(field) = bound.into_iter().find(|field| field.secret || !field.rules.fit_path()) {
            return Some(format!(
                "path variable {{{}}} is an id, and no secret: only id, required and routing_only fit",
                field.name()
            ));
        }
        let twice = variables.iter().find(|v| variables.iter().filter(|other| other == v).count() > 1);
        twice.map(|variable| format!("path variable {{{variable}}} is there twice"))
    }

    fn request_problem(&self, request: &Message, api: &Api) -> Option<String> {
        let project = request.field(PROJECT_ID).filter(|field| is_plain_text(field));
        let is_routed = |field: &Field| field.rules.routing_only != variables(&self.template).contains(&PROJECT_ID);
        if !project.is_some_and(is_routed) {
            return Some(NO_PROJECT.to_owned());
        }
        if self.body != Body::None && ["GET", "DELETE"].contains(&self.verb.as_str()) {
            return Some(format!("{} has no body", self.verb));
        }
        if let Body::Field(name) = &self.body {
            let fits = |field: &Field| matches!(field.kind(), Kind::Message(_)) || !field.is_single();
            if !request.field(name).is_some_and(fits) {
                return Some(format!("body \"{name}\" has to name a message or a list of the request"));
            }
            if request.field(name).is_some_and(|field| field.rules.joined_by.is_some()) {
                return Some(format!("body \"{name}\" is a JSON list: joined_by does not fit"));
            }
        }
        let differs = |binding: &RestBinding| request.fields.iter().any(|f| binding.place(f) != self.place(f));
        if api.methods_with_input(request).any(differs) {
            return Some("the request is that of an RPC with another path, query or body".to_owned());
        }
        let is_list_of_messages = |field: &Field| !field.is_single() && matches!(field.kind(), Kind::Message(_));
        let mut query = request.fields.iter().filter(|field| self.place(field) == Place::Query).collect::<Vec<_>>();
        while let Some(field) = query.pop() {
            let problem = match &field.rules {
                _ if is_list_of_messages(field) => "is a list of messages, which no query can hold",
                _ if field.secret => "is a secret, which no query may hold",
                rules if rules.send_empty && rules.joined_by.is_none() => {
                    "is a list in the query, where send_empty needs joined_by"
                }
                _ => "",
            };
            if !problem.is_empty() {
                return Some(format!("field {} {problem}", field.name()));
            }
            let inner = field.kind().as_message().and_then(|message| api.message(message));
            query.extend(inner.into_iter().flat_map(|message| &message.fields));
        }
        None
    }

    /// Returns which rule of a message in the request has no effect there.
    fn request_rules_problem(&self, request: &Message, api: &Api) -> Option<String> {
        let replies = api.reachable(api.methods.iter().map(|binding| binding.method.output()));
        let is_in_reply = |message: &Message| replies.iter().any(|reply| reply.descriptor == message.descriptor);
        let messages = api.reachable([request.descriptor.clone()].into_iter());
        messages.into_iter().flat_map(|message| message.fields.iter().map(move |field| (message, field))).find_map(
            |(message, field)| {
                let problem = match &field.rules {
                    rules if rules.is_nonempty.is_some() => "is_nonempty is for replies",
                    rules if rules.acknowledgement.is_some() => "acknowledgement is for replies",
                    rules if !rules.json_aliases.is_empty() && !is_in_reply(message) => "json_aliases are for replies",
                    rules if rules.routing_only && message.descriptor != request.descriptor => {
                        "routing_only is for the project_id of the request itself"
                    }
                    _ => return None,
                };
                Some(format!("{}.{}: {problem}", message.name(), field.name()))
            },
        )
    }

    fn reply_problem(&self, reply: &Message, api: &Api) -> Option<String> {
        let (body, is_list) = match &self.response_body {
            None => (Some(reply), false),
            Some(name) => {
                let Some(field) = reply.field(name) else {
                    return Some(format!("response_body \"{name}\" names no field of the reply"));
                };
                let is_message = matches!(field.kind(), Kind::Message(_));
                if reply.fields.len() > 1 || !is_message && field.is_single() {
                    return Some(format!(
                        "response_body \"{name}\" has to name the only field of the reply, a message or a list"
                    ));
                }
                if field.rules.joined_by.is_some() || !field.rules.json_aliases.is_empty() {
                    return Some(format!("response_body \"{name}\" has no key: joined_by and json_aliases do not fit"));
                }
                (field.kind().as_message().and_then(|message| api.message(message)), !field.is_single())
            }
        };
        let others = api.methods.iter().filter(|binding| binding.method.output() == reply.descriptor);
        if others.into_iter().any(|binding| binding.response_body != self.response_body) {
            return Some("the reply is that of an RPC with another response_body".to_owned());
        }
        let object = body.filter(|_| !is_list).map(|message| &message.descriptor);
        let inner = api.reachable([reply.descriptor.clone()].into_iter());
        let mut inner = inner.into_iter().filter(|message| object != Some(&message.descriptor));
        let has_acknowledgement = |message: &&Message| message.fields.iter().any(|f| f.rules.acknowledgement.is_some());
        if let Some(message) = inner.find(has_acknowledgement) {
            return Some(format!(
                "{}: acknowledgement is for the message that is the JSON object of a reply",
                message.name()
            ));
        }
        let mut keys = body.into_iter().flat_map(|message| &message.fields).flat_map(Field::keys);
        let key = keys.find(|key| ERROR_KEYS.contains(key));
        key.map(|key| format!("a reply with the key {key} would be taken for an error"))
    }
}

impl CustomRpc {
    /// Returns why the RPC cannot be served, or `None` if it can.
    pub(crate) fn problem(&self, api: &Api) -> Option<String> {
        let request = api.message(&self.method.input()).and_then(|request| request.field(PROJECT_ID));
        let is_routed = request.is_some_and(|field| is_plain_text(field) && field.rules.routing_only);
        if http_rule(&self.method).is_some() {
            Some("has (google.api.http) and is written by hand: remove one of them".to_owned())
        } else if self.method.is_client_streaming() || !self.method.is_server_streaming() {
            Some("is written by hand, which is for RPCs that stream responses and have one request".to_owned())
        } else if !is_routed {
            Some(NO_PROJECT.to_owned())
        } else {
            api.name_problem(&self.method)
        }
    }
}

/// Returns whether the field is a string that is always there.
fn is_plain_text(field: &Field) -> bool {
    field.kind() == Kind::String && field.is_single() && !field.is_option()
}
