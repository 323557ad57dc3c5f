//! Part of `build.rs`: reads the options of `huaweicloud/scm/rest/v1/annotations.proto`, and rejects rules that do not
//! fit their field.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};

/// The extension of `FieldOptions` and of `MethodOptions`.
const FIELD: &str = "huaweicloud.scm.rest.v1.field";
const METHOD: &str = "huaweicloud.scm.rest.v1.method";

/// The rules of a field, as `FieldRules` documents them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldRules {
    pub(crate) required: bool,
    pub(crate) min_len: Option<u64>,
    pub(crate) max_len: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) in_: Vec<i64>,
    pub(crate) gte: Option<i64>,
    pub(crate) lte: Option<i64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) words: Vec<String>,
    pub(crate) joined_by: Option<String>,
    pub(crate) routing_only: bool,
    pub(crate) acknowledgement: Option<String>,
    pub(crate) multiline: bool,
    pub(crate) id: bool,
    pub(crate) send_empty: bool,
    pub(crate) not_blank: bool,
    pub(crate) is_nonempty: Option<String>,
    pub(crate) json_aliases: Vec<String>,
}

/// The rules of an RPC, as `MethodRules` documents them.
#[derive(Debug)]
pub(crate) struct MethodRules {
    pub(crate) success_statuses: Vec<u16>,
    pub(crate) empty_reply: bool,
    pub(crate) grant_by_name: bool,
}

impl FieldRules {
    /// Reads the rules of a field. Returns why they are not supported, if they are not.
    pub(crate) fn read(field: &FieldDescriptor) -> Result<Self, String> {
        let options = extension(field.options(), FIELD, field.parent_pool());
        let Some(options) = options else { return Ok(Self::default()) };
        let options = Options(options);
        let rules = Self {
            required: options.bool("required"),
            min_len: options.u64("min_len"),
            max_len: options.u64("max_len"),
            max_bytes: options.u64("max_bytes"),
            in_: options.list("in", Value::as_i64),
            gte: options.i64("gte"),
            lte: options.i64("lte"),
            min_items: options.u64("min_items"),
            max_items: options.u64("max_items"),
            words: options.list("words", |word| word.as_str().map(str::to_owned)),
            joined_by: options.text("joined_by"),
            routing_only: options.bool("routing_only"),
            acknowledgement: options.text("acknowledgement"),
            multiline: options.bool("multiline"),
            id: options.bool("id"),
            send_empty: options.bool("send_empty"),
            not_blank: options.bool("not_blank"),
            is_nonempty: options.text("is_nonempty"),
            json_aliases: options.list("json_aliases", |alias| alias.as_str().map(str::to_owned)),
        };
        match rules.problem(field) {
            Some(problem) => Err(problem),
            None => Ok(rules),
        }
    }

    /// Returns whether the text of a field is limited in length.
    pub(crate) fn has_length(&self) -> bool {
        self.min_len.is_some() || self.max_len.is_some() || self.max_bytes.is_some()
    }

    /// Returns whether all rules hold for a variable of the path, which is an id.
    pub(crate) fn fit_path(&self) -> bool {
        let &Self { id, required, routing_only, .. } = self;
        *self == Self { id, required, routing_only, ..Self::default() }
    }

    /// Returns whether the number in a field is limited.
    fn has_range(&self) -> bool {
        !self.in_.is_empty() || self.gte.is_some() || self.lte.is_some()
    }

    /// Returns the first rule that does not fit the field.
    fn problem(&self, field: &FieldDescriptor) -> Option<String> {
        let is_list = field.cardinality() == Cardinality::Repeated;
        let is_text = field.kind() == Kind::String;
        let is_plain = !is_list && !field.supports_presence();
        let is_number = is_number(&field.kind());
        let mut limits = self.in_.iter().chain(&self.gte).chain(&self.lte);
        let is_message = matches!(field.kind(), Kind::Message(_));
        let has_text_rule = self.has_length() || self.multiline || self.not_blank;
        let items = self.min_items.is_some() || self.max_items.is_some();
        let named = |name: &String| {
            let named = field.parent_message().get_field_by_name(name);
            named.is_some_and(|f| f.kind() == Kind::String && f.cardinality() != Cardinality::Repeated)
        };
        let problem = if has_text_rule && !is_text {
            "min_len, max_len, max_bytes, multiline and not_blank are for strings"
        } else if self.not_blank && is_list {
            "not_blank is for a single string"
        } else if self.has_range() && (!is_number || is_list) {
            "in, gte and lte are for a single number"
        } else if field.kind() == Kind::Int32 && limits.any(|limit| i32::try_from(*limit).is_err()) {
            "in, gte and lte of an int32 have to be numbers that it can hold"
        } else if !self.in_.is_empty() && (self.gte.is_some() || self.lte.is_some()) {
            "in does not go together with gte and lte"
        } else if items && !is_list {
            "min_items and max_items are for lists"
        } else if self.required && is_number && !is_list {
            "a number is always there: use in, gte or lte"
        } else if self.required && !is_list && !is_message && !is_plain {
            "an optional field is not required"
        } else if !self.words.is_empty() && (!is_text || has_text_rule || self.id) {
            "words are for strings, without rules for lengths and characters"
        } else if self.id && (!is_text || has_text_rule) {
            "id is for strings, without rules for lengths and characters"
        } else if self.joined_by.is_some() && !(is_text && is_list) {
            "joined_by is for lists of strings"
        } else if self.joined_by.is_some() && (items || self.id || !self.words.is_empty()) {
            "a joined list has rules for its text, not for its entries"
        } else if self.joined_by.as_ref().is_some_and(|text| ![";", ","].contains(&text.as_str())) {
            "joined_by is \";\" or \",\", at which responses are split"
        } else if self.routing_only && !(is_text && is_plain && field.name() == "project_id") {
            "routing_only is for project_id, a string that is not optional"
        } else if self.acknowledgement.is_some() && !(is_text && is_plain) {
            "acknowledgement is for a string that is not optional"
        } else if self.send_empty && !is_list {
            "send_empty is for lists"
        } else if self.is_nonempty.is_some() && !(field.kind() == Kind::Bool && is_plain) {
            "is_nonempty is for a bool that is not optional"
        } else if self.is_nonempty.as_ref().is_some_and(|name| !named(name)) {
            "is_nonempty has to name a string of the same message"
        } else if !self.json_aliases.is_empty() && is_list {
            "json_aliases are for a single value"
        } else if !self.json_aliases.is_empty() && (self.acknowledgement.is_some() || self.is_nonempty.is_some()) {
            "json_aliases do not go together with acknowledgement and is_nonempty"
        } else if crosses(self.min_len, self.max_len) || crosses(self.min_items, self.max_items) {
            "the smallest length is larger than the largest one"
        } else if self.gte.zip(self.lte).is_some_and(|(gte, lte)| gte > lte) {
            "gte is larger than lte"
        } else {
            return None;
        };
        Some(problem.to_owned())
    }
}

/// Returns whether a field of this type is a number.
pub(crate) fn is_number(kind: &Kind) -> bool {
    matches!(kind, Kind::Int32 | Kind::Int64)
}

fn crosses(min: Option<u64>, max: Option<u64>) -> bool {
    min.zip(max).is_some_and(|(min, max)| min > max)
}

impl MethodRules {
    /// Reads the rules of an RPC. Returns why they are not supported, if they are not.
    pub(crate) fn read(method: &MethodDescriptor) -> Result<Self, String> {
        let options = extension(method.options(), METHOD, method.parent_pool()).map(Options);
        let list = |options: &Options| options.list("success_statuses", Value::as_u32);
        let statuses = options.as_ref().map(list).filter(|statuses| !statuses.is_empty());
        let statuses = statuses.unwrap_or_else(|| vec![200]);
        let success_statuses = statuses.iter().map(|status| u16::try_from(*status).unwrap_or_default()).collect();
        if let Some(status) = statuses.iter().find(|status| !(200..300).contains(*status)) {
            return Err(format!("success_statuses: {status} is no success"));
        }
        let flag = |name| options.as_ref().is_some_and(|options| options.bool(name));
        let (empty_reply, grant_by_name) = (flag("empty_reply"), flag("grant_by_name"));
        if statuses.contains(&204) && !empty_reply {
            return Err("success_statuses: a 204 has no body, so empty_reply is needed".to_owned());
        }
        Ok(Self { success_statuses, empty_reply, grant_by_name })
    }
}

/// Returns the message in an extension, or `None` if it is not set or its file is not imported.
fn extension(options: DynamicMessage, name: &str, pool: &prost_reflect::DescriptorPool) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(name)?;
    let value = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned());
    match value {
        Some(Value::Message(message)) => Some(message),
        _ => None,
    }
}

/// The fields of an option.
struct Options(DynamicMessage);

impl Options {
    fn get<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.0.has_field_by_name(name).then(|| read(&*self.0.get_field_by_name(name)?))?
    }

    fn bool(&self, name: &str) -> bool {
        self.get(name, Value::as_bool).unwrap_or_default()
    }

    fn u64(&self, name: &str) -> Option<u64> {
        self.get(name, Value::as_u64)
    }

    fn i64(&self, name: &str) -> Option<i64> {
        self.get(name, Value::as_i64)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name, |value| value.as_str().map(str::to_owned))
    }

    fn list<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        self.get(name, |value| value.as_list().map(|list| list.iter().filter_map(&read).collect())).unwrap_or_default()
    }
}
