//! Part of `build.rs`: reads the REST annotations of each RPC in the proto. Rejects annotations that the gateway cannot
//! honor, so that an unsupported proto fails the build with a message.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

use crate::{
    options::{FieldRules, MethodRules, is_number},
    unsupported::field_problem,
};

/// The request field that selects the project, and with it the credentials.
pub(crate) const PROJECT_ID: &str = "project_id";

/// Names in the modules that the messages are generated into.
const RESERVED_MESSAGES: [&str; 2] = ["Self", "Rpc"];

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
            match field_problem(&descriptor, secret) {
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
        self.descriptor.cardinality() != Cardinality::Repeated
    }

    /// Returns whether prost represents the field as an `Option`.
    pub(crate) fn is_option(&self) -> bool {
        self.is_single() && self.descriptor.supports_presence()
    }

    pub(crate) fn is_number(&self) -> bool {
        is_number(&self.kind())
    }
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
}

impl CustomRpc {
    fn read(method: MethodDescriptor) -> Result<Self, String> {
        let rules = MethodRules::read(&method).map_err(|problem| format!("{}: {problem}", full_name(&method)))?;
        Ok(Self { read_only: idempotency_level(&method) == NO_SIDE_EFFECTS, rules, method })
    }
}

/// Returns the full name of an RPC, `package.Service/Method`.
pub(crate) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Returns the REST side, or `None` if the RPC has none.
pub(crate) fn http_rule(method: &MethodDescriptor) -> Option<DynamicMessage> {
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
