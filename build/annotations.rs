//! Part of `build.rs`: reads the REST annotations of each RPC in the proto. Rejects annotations that the gateway cannot
//! honor, so that an unsupported proto fails the build with a message.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

use crate::options::{FieldRules, MethodRules, is_number};

/// The request field that selects the project, and with it the credentials.
pub(crate) const PROJECT_ID: &str = "project_id";

/// The problem of an RPC whose project is not known.
const NO_PROJECT: &str = "the request needs `string project_id`, which selects the credentials: in the path, or with the \
                          option routing_only";

/// Keywords that prost does not write as raw identifiers.
const RESERVED_NAMES: [&str; 5] = ["self", "Self", "super", "crate", "extern"];

/// Names in the modules that the messages are generated into.
const RESERVED_MESSAGES: [&str; 2] = ["Self", "Rpc"];

/// The keys of an error body. A reply that used one of them would be taken for an error.
const ERROR_KEYS: [&str; 6] = ["error_code", "errorCode", "error_msg", "errorMsg", "error", "code"];

/// The field number of `json_name` in `FieldDescriptorProto`, for the locations of the source.
const JSON_NAME: i32 = 10;

/// The parts of the package that code is generated for.
pub(crate) struct Api {
    pub(crate) services: Vec<ServiceDescriptor>,
    pub(crate) messages: Vec<Message>,
    pub(crate) methods: Vec<RestBinding>,
    pub(crate) custom: Vec<CustomRpc>,
}

/// An RPC without a REST side of its own, which is written by hand.
pub(crate) struct CustomRpc {
    pub(crate) method: MethodDescriptor,
    pub(crate) read_only: bool,
    pub(crate) rules: MethodRules,
}

/// A message.
pub(crate) struct Message {
    pub(crate) descriptor: MessageDescriptor,
    pub(crate) fields: Vec<Field>,
}

/// A field, with its key in JSON and query.
pub(crate) struct Field {
    pub(crate) descriptor: FieldDescriptor,
    pub(crate) key: String,
    pub(crate) rules: FieldRules,
    /// Whether the field is a secret, which is wiped.
    pub(crate) secret: bool,
}

/// The annotations of an RPC.
pub(crate) struct RestBinding {
    pub(crate) method: MethodDescriptor,
    /// The HTTP method, upper case.
    pub(crate) verb: String,
    pub(crate) template: String,
    pub(crate) body: Body,
    /// The field of the reply that the whole response is.
    pub(crate) response_body: Option<String>,
    pub(crate) idempotent: bool,
    pub(crate) read_only: bool,
    pub(crate) rules: MethodRules,
}

/// What is sent as the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// A message or a list.
    Field(String),
    /// All fields that are not bound otherwise.
    All,
}

/// Where a field of a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Body,
    Nowhere,
}

/// Reads the services of a package, and its messages. The RPCs named in `custom` are written by hand.
pub(crate) fn read(pool: &DescriptorPool, package: &str, custom: &[&str]) -> Result<Api, String> {
    let services: Vec<_> = pool.services().filter(|service| service.package_name() == package).collect();
    if services.is_empty() {
        return Err(format!("{package}: has no service"));
    }
    let descriptors = pool.all_messages().filter(|message| message.package_name() == package);
    let messages = descriptors.map(Message::read).collect::<Result<Vec<_>, _>>()?;
    let methods = services.iter().flat_map(ServiceDescriptor::methods);
    let (by_hand, bound): (Vec<_>, Vec<_>) = methods.partition(|method| custom.contains(&method.name()));
    if let Some(name) = custom.iter().find(|name| !by_hand.iter().any(|method| method.name() == **name)) {
        return Err(format!("{package}: has no RPC {name}, which CUSTOM_RPCS in build.rs names"));
    }
    let api = Api {
        methods: bound.into_iter().map(RestBinding::read).collect::<Result<Vec<_>, _>>()?,
        custom: by_hand.into_iter().map(CustomRpc::read).collect::<Result<Vec<_>, _>>()?,
        services,
        messages,
    };
    let bound = api.methods.iter().map(|binding| (&binding.method, binding.problem(&api)));
    let by_hand = api.custom.iter().map(|rpc| (&rpc.method, rpc.problem(&api)));
    match bound.chain(by_hand).find_map(|(method, problem)| Some((method, problem?))) {
        Some((method, problem)) => Err(format!("{}: {problem}", full_name(method))),
        None => Ok(api),
    }
}

impl Api {
    /// Returns a message of the package.
    pub(crate) fn message(&self, descriptor: &MessageDescriptor) -> Option<&Message> {
        self.messages.iter().find(|message| message.descriptor == *descriptor)
    }

    /// Returns the RPCs with this request.
    pub(crate) fn methods_with_input<'a>(&'a self, message: &'a Message) -> impl Iterator<Item = &'a RestBinding> {
        self.methods.iter().filter(|binding| binding.method.input() == message.descriptor)
    }

    /// Returns the requests of all RPCs.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = MessageDescriptor> {
        let bound = self.methods.iter().map(|binding| &binding.method);
        bound.chain(self.custom.iter().map(|rpc| &rpc.method)).map(MethodDescriptor::input)
    }

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

    /// Returns the messages and every message inside them, each once, in the order of the proto.
    pub(crate) fn reachable(&self, roots: impl Iterator<Item = MessageDescriptor>) -> Vec<&Message> {
        let mut open: Vec<_> = roots.collect();
        let mut found: Vec<MessageDescriptor> = Vec::new();
        while let Some(message) = open.pop() {
            if !found.contains(&message) {
                open.extend(message.fields().filter_map(|field| field.kind().as_message().cloned()));
                found.push(message);
            }
        }
        self.messages.iter().filter(|message| found.contains(&message.descriptor)).collect()
    }
}

impl Message {
    /// Reads a message. Rejects one without an obvious JSON form.
    fn read(descriptor: MessageDescriptor) -> Result<Self, String> {
        let name = descriptor.name();
        if name.to_upper_camel_case() != name {
            let name = name.to_upper_camel_case();
            return Err(format!("{}: prost names it {name}: use that", descriptor.full_name()));
        }
        if RESERVED_MESSAGES.contains(&name) {
            return Err(format!("{}: the name is reserved in Rust: choose another", descriptor.full_name()));
        }
        if descriptor.parent_message().is_some() {
            return Err(format!("{}: nested messages and maps are not supported", descriptor.full_name()));
        }
        if contains(&descriptor, &descriptor, &mut Vec::new()) {
            return Err(format!("{}: a message that contains itself is not supported", descriptor.full_name()));
        }
        let fields = descriptor.fields().map(Field::read).collect::<Result<Vec<_>, _>>()?;
        let mut keys: Vec<_> = fields.iter().flat_map(Field::keys).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("{}: the JSON key {} is there twice", descriptor.full_name(), pair[0])),
            None => Ok(Self { descriptor, fields }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.descriptor.name()
    }

    /// Returns the field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name() == name)
    }
}

/// Returns whether `target` is inside `message`, at any depth.
fn contains(message: &MessageDescriptor, target: &MessageDescriptor, seen: &mut Vec<MessageDescriptor>) -> bool {
    message.fields().filter_map(|field| field.kind().as_message().cloned()).any(|inner| {
        let is_new = !seen.contains(&inner);
        seen.push(inner.clone());
        inner == *target || (is_new && contains(&inner, target, seen))
    })
}

impl Field {
    fn read(descriptor: FieldDescriptor) -> Result<Self, String> {
        let field = FieldRules::read(&descriptor).and_then(|rules| {
            let secret = descriptor.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool());
            let secret = secret.unwrap_or_default();
            let name = descriptor.name().to_snake_case();
            match unsupported(&descriptor, secret) {
                Some(problem) => Err(problem.to_owned()),
                None if name != descriptor.name() => Err(format!("prost names it {name}: use that, with a json_name")),
                None => Ok(Self { key: json_key(&descriptor), descriptor: descriptor.clone(), rules, secret }),
            }
        });
        field.map_err(|problem| format!("{}: {problem}", descriptor.full_name()))
    }

    pub(crate) fn name(&self) -> &str {
        self.descriptor.name()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.descriptor.kind()
    }

    /// Returns the keys of the field in the JSON of a reply.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key).chain(&self.rules.json_aliases).map(String::as_str)
    }

    /// Returns whether the field is not a list.
    pub(crate) fn is_single(&self) -> bool {
        is_single(&self.descriptor)
    }

    /// Returns whether prost represents the field as an `Option`.
    pub(crate) fn is_option(&self) -> bool {
        is_option(&self.descriptor)
    }

    pub(crate) fn is_number(&self) -> bool {
        is_number(&self.kind())
    }
}

/// Returns why a field is not supported, or `None` if it is.
fn unsupported(field: &FieldDescriptor, secret: bool) -> Option<&'static str> {
    Some(match field.kind() {
        _ if RESERVED_NAMES.contains(&field.name()) => "the name is reserved in Rust: choose another",
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

/// Returns the key of a field in JSON: its `json_name` if the proto has one, otherwise the name.
///
/// A descriptor always has a `json_name`; whether it comes from the proto is known from its location in the source.
fn json_key(field: &FieldDescriptor) -> String {
    let path: Vec<_> = field.path().iter().copied().chain([JSON_NAME]).collect();
    let file = field.parent_file();
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let is_explicit = source.is_some_and(|source| source.location.iter().any(|location| location.path == path));
    if is_explicit { field.json_name().to_owned() } else { field.name().to_owned() }
}

fn is_single(field: &FieldDescriptor) -> bool {
    field.cardinality() != Cardinality::Repeated
}

fn is_option(field: &FieldDescriptor) -> bool {
    is_single(field) && field.supports_presence()
}

/// Returns whether the field is a string that is always there.
fn is_plain_text(field: &Field) -> bool {
    field.kind() == Kind::String && field.is_single() && !field.is_option()
}

/// Returns the variables of a path template.
pub(crate) fn variables(template: &str) -> Vec<&str> {
    template.split('/').filter_map(variable).collect()
}

/// Returns the name of the variable if the segment is one.
pub(crate) fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

impl RestBinding {
    fn read(method: MethodDescriptor) -> Result<Self, String> {
        let rpc = full_name(&method);
        let missing = || "has no option (google.api.http)".to_owned();
        let binding = http_rule(&method).ok_or_else(missing).and_then(|rule| {
            let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb));
            let verb = verb.ok_or("(google.api.http) names no path, or a custom method")?;
            let idempotency = idempotency_level(&method);
            Ok(Self {
                verb: verb.to_uppercase(),
                template: text(&rule, verb),
                body: match text(&rule, "body").as_str() {
                    "" => Body::None,
                    "*" => Body::All,
                    field => Body::Field(field.to_owned()),
                },
                response_body: Some(text(&rule, "response_body")).filter(|field| !field.is_empty()),
                idempotent: idempotency != IDEMPOTENCY_UNKNOWN,
                read_only: idempotency == NO_SIDE_EFFECTS,
                rules: MethodRules::read(&method)?,
                method,
            })
        });
        binding.map_err(|problem| format!("{rpc}: {problem}"))
    }

    /// Returns the full name, `package.Service/Method`.
    pub(crate) fn rpc(&self) -> String {
        full_name(&self.method)
    }

    /// Returns where a field of the request goes.
    pub(crate) fn place(&self, field: &Field) -> Place {
        match &self.body {
            _ if variables(&self.template).contains(&field.name()) => Place::Path,
            _ if field.name() == PROJECT_ID => Place::Nowhere,
            Body::Field(name) if name == field.name() => Place::Body,
            Body::All => Place::Body,
            _ => Place::Query,
        }
    }

    /// Returns why the RPC cannot be served as annotated, or `None` if it can.
    fn problem(&self, api: &Api) -> Option<String> {
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
    fn read(method: MethodDescriptor) -> Result<Self, String> {
        let rules = MethodRules::read(&method).map_err(|problem| format!("{}: {problem}", full_name(&method)))?;
        Ok(Self { read_only: idempotency_level(&method) == NO_SIDE_EFFECTS, rules, method })
    }

    /// Returns why the RPC cannot be served, or `None` if it can.
    fn problem(&self, api: &Api) -> Option<String> {
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

/// Returns the full name of an RPC, `package.Service/Method`.
pub(crate) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Returns the REST side, or `None` if the RPC has none.
fn http_rule(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name("google.api.http")?;
    let options = method.options();
    match options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned()) {
        Some(Value::Message(rule)) => Some(rule),
        _ => None,
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

const IDEMPOTENCY_UNKNOWN: i32 = 0;
const NO_SIDE_EFFECTS: i32 = 1;

/// Returns the `idempotency_level`. By default a method is not idempotent, so an attempt with an unknown outcome is not
/// retried.
fn idempotency_level(method: &MethodDescriptor) -> i32 {
    let options = method.method_descriptor_proto().options.as_ref();
    options.and_then(|options| options.idempotency_level).unwrap_or(IDEMPOTENCY_UNKNOWN)
}
