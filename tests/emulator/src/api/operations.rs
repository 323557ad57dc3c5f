//! Reads `operations.json`, which describes every operation that the vendor has published.
//!
//! The file is a copy of the project's collection of facts, unchanged. It differs from the vendor's wire in one place:
//! the path of `ListCertificatesByTag` has the variable `{resource_instances}`, whose only value is the literal
//! `resource_instances`. The check of the variable's `const` holds that.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// An operation of the vendor.
#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) http_method: String,
    /// A template such as `/v3/scm/csr/{id}`.
    pub(crate) path: String,
    pub(crate) path_params: Vec<Field>,
    pub(crate) query: Vec<Field>,
    pub(crate) body_kind: BodyKind,
    /// The fields of the body, or of each element if the body is an array.
    pub(crate) body: Vec<Field>,
    success_status: Vec<u16>,
    pub(crate) empty_reply: bool,
}

impl Operation {
    /// Returns the status of a success. Of the notifications' two possible ones, the vendor's OpenAPI has the last.
    pub(crate) fn success(&self) -> u16 {
        self.success_status.last().copied().unwrap_or(200)
    }

    /// Returns the segments of the path after the first slash.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.path.split('/').skip(1).map(|segment| {
            let variable = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            variable.map_or(Segment::Literal(segment), Segment::Variable)
        })
    }
}

/// A segment of a path template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BodyKind {
    None,
    Object,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    String,
    Boolean,
    Integer,
    Array,
    Object,
}

/// A path variable, a query parameter, or a field of a body. Lengths are in characters.
#[derive(Debug, Deserialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// The type of an array's elements.
    pub(crate) items: Option<Kind>,
    /// The fields of an object, or of an array's objects.
    #[serde(default)]
    pub(crate) nested: Vec<Field>,
    pub(crate) min_length: Option<usize>,
    pub(crate) max_length: Option<usize>,
    pub(crate) min_items: Option<usize>,
    pub(crate) max_items: Option<usize>,
    pub(crate) item_min_length: Option<usize>,
    pub(crate) item_max_length: Option<usize>,
    pub(crate) minimum: Option<i64>,
    pub(crate) maximum: Option<i64>,
    /// The only values, unless the vendor adds to them (`open_enum`).
    #[serde(rename = "enum")]
    pub(crate) values: Option<Vec<Value>>,
    pub(crate) item_enum: Option<Vec<Value>>,
    #[serde(rename = "const")]
    pub(crate) constant: Option<Value>,
}

/// All operations, in the order of the file.
pub(crate) static OPERATIONS: LazyLock<Vec<Operation>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../operations.json")).expect("the file has this form"));
