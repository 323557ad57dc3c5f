//! The rules of every request field: values at each limit, and beyond.

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use scm_emulator::{Emulator, Recorded, Reply, Step};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    Gateway, assert_status, emulator, fields,
    rpc::{Rpc, Rules, inner, json_key, rpcs},
    samples::{self, Filling},
};

mod cases;

use cases::{Named, cases, text};

/// Text that must not appear in a status.
const MARKER: &str = "p1anted";

/// A field of a request, by the fields that lead to it. Each list has one entry.
type Path = Vec<FieldDescriptor>;

fn paths(descriptor: &MessageDescriptor, at: &Path, found: &mut Vec<Path>) {
    for field in descriptor.fields().filter(|field| field.name() != "project_id") {
        let path = [at.as_slice(), std::slice::from_ref(&field)].concat();
        found.push(path.clone());
        if let Some(inner) = inner(&field) {
            paths(&inner, &path, found);
        }
    }
}

/// Returns the proto path, in a request with one entry in each list.
fn name(path: &Path, is_entry: bool) -> String {
    let last = path.len() - 1;
    let part = |(index, field): (usize, &FieldDescriptor)| {
        let is_indexed = field.is_list() && (index < last || is_entry);
        if is_indexed { format!("{}[0]", field.name()) } else { field.name().to_owned() }
    };
    path.iter().enumerate().map(part).collect::<Vec<_>>().join(".")
}

/// Sets the field at a path.
fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], value: Option<Value>) {
    match (path, value) {
        ([field], Some(value)) => message.set_field(field, value),
        ([field], None) => message.clear_field(field),
        ([field, rest @ ..], value) => match message.get_field_mut(field) {
            Value::Message(inner) => set(inner, rest, value),
            Value::List(entries) => match &mut entries[0] {
                Value::Message(inner) => set(inner, rest, value),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        },
        ([], _) => panic!("an empty path"),
    }
}

struct Calls {
    emulator: Emulator,
    gateway: Gateway,
}

impl Calls {
    async fn new() -> Self {
        let emulator = emulator().await;
        let gateway = Gateway::serving_all(&emulator, &[]).await;
        Self { emulator, gateway }
    }

    /// Calls an RPC. Returns what reached the upstream, or the status.
    async fn send(&self, rpc: &Rpc, request: DynamicMessage) -> Result<Recorded, Status> {
        let (status, body) = rpc.success();
        let before = self.emulator.attempts();
        if self.emulator.steps_left() == 0 {
            self.emulator.script(Step::Reply(Reply::json(status, &body)));
        }
        let result = self.gateway.call(rpc, request).await;
        match result {
            Ok(_) => Ok(self.emulator.take_journal().pop().unwrap()),
            Err(status) => {
                assert_eq!(self.emulator.attempts(), before, "{}: {status:?}", rpc.name());
                assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
                Err(status)
            }
        }
    }
}

fn assert_no_value(status: &Status) {
    let details = String::from_utf8_lossy(status.details());
    assert!(!details.contains(MARKER) && !status.message().contains(MARKER), "{status:?}");
    let violations = status.get_error_details().bad_request().unwrap().field_violations.clone();
    assert!(violations.iter().all(|violation| !violation.description.is_empty()), "{status:?}");
}

#[tokio::test]
async fn values_at_each_limit_are_accepted_and_beyond_it_named() {
    for rpc in rpcs() {
        let calls = Calls::new().await; // a step is left for each RPC
        let mut found = Vec::new();
        paths(&rpc.method.input(), &Vec::new(), &mut found);
        for path in found {
            for case in cases(&rpc, &path) {
                let mut request = samples::request(&rpc, Filling::All);
                set(&mut request, &path, case.value.clone());
                let what = format!("{} {}: {:?}", rpc.name(), name(&path, false), case.value);
                let what = what.get(..200).unwrap_or(&what);
                match (calls.send(&rpc, request).await, case.rejected) {
                    (Ok(_), None) => {}
                    (Err(status), Some(named)) => {
                        let fields = fields(&status);
                        let expected = name(&path, named == Named::Entry);
                        assert_eq!(fields.first(), Some(&expected), "{what}: {status:?}");
                        let is_same = |field: &String| field.split('[').next() == expected.split('[').next();
                        assert!(fields.iter().all(is_same), "{what}: {status:?}");
                        assert_no_value(&status);
                    }
                    (Ok(_), Some(_)) => panic!("{what} was sent"),
                    (Err(status), None) => panic!("{what}: {status:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    for rpc in rpcs() {
        let calls = Calls::new().await;
        let mut found = Vec::new();
        paths(&rpc.method.input(), &Vec::new(), &mut found);
        let mut request = samples::request(&rpc, Filling::All);
        let mut expected = Vec::new();
        for path in &found {
            let is_leaf = inner(path.last().unwrap()).is_none();
            let bad = cases(&rpc, path).into_iter().filter(|case| is_leaf && case.value.is_some());
            if let Some((case, named)) = bad.filter_map(|case| case.rejected.map(|named| (case, named))).last() {
                set(&mut request, path, case.value);
                expected.push(name(path, named == Named::Entry));
            }
        }
        if expected.is_empty() {
            continue;
        }
        let status = calls.send(&rpc, request).await.unwrap_err();
        let mut named = fields(&status);
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "{}", rpc.name());
        assert_no_value(&status);
    }
}

#[tokio::test]
async fn words_are_sent_in_the_vendors_spelling() {
    for rpc in rpcs() {
        let calls = Calls::new().await;
        let mut found = Vec::new();
        paths(&rpc.method.input(), &Vec::new(), &mut found);
        for path in found.iter().filter(|path| !Rules::of(path.last().unwrap()).words.is_empty()) {
            let field = path.last().unwrap();
            for word in Rules::of(field).words {
                for spelling in [word.to_lowercase(), word.to_uppercase(), word.clone()] {
                    let value = if field.is_list() { Value::List(vec![text(spelling)]) } else { text(spelling) };
                    let mut request = samples::request(&rpc, Filling::All);
                    set(&mut request, path, Some(value));
                    let sent = calls.send(&rpc, request).await.unwrap();
                    let key = json_key(field);
                    let expected = match sent.body.is_empty() {
                        true => format!("{key}={word}"),
                        false if field.is_list() => format!(r#""{key}":["{word}"]"#),
                        false => format!(r#""{key}":"{word}""#),
                    };
                    let seen = format!("{}{}", sent.target, String::from_utf8(sent.body).unwrap());
                    assert!(seen.contains(&expected), "{expected} in {seen}");
                }
            }
        }
    }
}

/// Returns domain names that have this length with a separator between them.
fn names_of_length(length: usize) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), length);
    while rest > 0 {
        let part = if rest > 100 {
            50
        } else if rest > 60 {
            30
        } else {
            rest
        };
        names.push(format!("n{}{}.example", names.len(), "x".repeat(part - 9 - names.len().to_string().len())));
        rest -= part + usize::from(rest > part);
    }
    assert_eq!(names.join(";").len(), length);
    names
}

#[tokio::test]
async fn the_limit_of_a_joined_list_is_that_of_its_text() {
    for rpc in rpcs() {
        let calls = Calls::new().await;
        for field in rpc.method.input().fields() {
            let rules = Rules::of(&field);
            let (Some(max), true) = (rules.max_len, rules.joined_by.is_some()) else { continue };
            for (length, is_accepted) in [(max, true), (max + 1, false)] {
                let names = names_of_length(length);
                let mut request = samples::request(&rpc, Filling::All);
                request.set_field(&field, Value::List(names.into_iter().map(text).collect()));
                match calls.send(&rpc, request).await {
                    Ok(_) => assert!(is_accepted, "{} {}: {length}", rpc.name(), field.name()),
                    Err(status) => {
                        assert!(!is_accepted, "{} {}: {length} {status:?}", rpc.name(), field.name());
                        assert_eq!(fields(&status), [field.name()]);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn required_fields_suffice() {
    for rpc in rpcs() {
        let request = samples::request(&rpc, Filling::Required);
        let sent = Calls::new().await.send(&rpc, request).await;
        sent.unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name()));
    }
}
