//! The values of a field: those that its rules accept, up to each limit, and those beyond.

use prost_reflect::{FieldDescriptor, Kind, Value};

use super::MARKER;
use crate::harness::{
    rpc::{Rpc, Rules},
    samples::{self, Filling, is_special},
};

/// A value of a field, and whether it is accepted. Otherwise the entry of a list or the whole field is named.
pub struct Case {
    pub value: Option<Value>,
    pub rejected: Option<Named>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Named {
    Field,
    Entry,
}

pub fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

/// Returns the cases of a string.
fn texts(rules: &Rules, in_path: bool) -> (Vec<String>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    if in_path || rules.id {
        good.extend(["x".repeat(64), "A-b_9".to_owned()]);
        bad.extend(["", "a b", "a/b", "..", "é", "%2F"].map(str::to_owned));
        bad.push("x".repeat(65));
    } else if !rules.words.is_empty() {
        good.extend(rules.words.iter().flat_map(|word| [word.clone(), word.to_lowercase(), word.to_uppercase()]));
        bad.extend(["".to_owned(), MARKER.to_owned(), format!("{} ", rules.words[0])]);
    } else {
        for (max, character) in [(rules.max_len, "界"), (rules.max_bytes, "x")] {
            let Some(max) = max else { continue };
            good.push(character.repeat(max));
            bad.push(character.repeat(max + 1));
        }
        if let Some(min) = rules.min_len.filter(|min| *min > 0) {
            good.push("界".repeat(min));
            bad.push("界".repeat(min - 1));
        }
        match rules.required && rules.min_len.is_none() {
            true => bad.push(String::new()),
            false if rules.min_len.is_none() => good.push(String::new()),
            false => {}
        }
        if rules.not_blank {
            bad.push(" \u{3000}".to_owned());
        }
    }
    for control in ["\0", "\u{7}", "\u{1b}", "\u{85}", "\u{7f}"] {
        bad.push(format!("{MARKER}{control}"));
    }
    if !rules.multiline {
        bad.extend(["a\nb", "a\r", "\ta"].map(str::to_owned));
    }
    (good, bad)
}

/// Returns the cases of a field.
pub fn cases(rpc: &Rpc, path: &[FieldDescriptor]) -> Vec<Case> {
    let field = path.last().unwrap();
    let rules = Rules::of(field);
    let in_path = rpc.variables().contains(&field.name());
    let mut cases = Vec::new();
    let mut add = |value: Value, rejected| cases.push(Case { value: Some(value), rejected });
    let list = |value: &Value, length: usize| Value::List(vec![value.clone(); length]);
    match field.kind() {
        Kind::String if field.is_list() => {
            let (good, bad) = if rules.joined_by.is_some() { joined(&rules) } else { texts(&rules, false) };
            let length = rules.min_items.unwrap_or(1);
            let (good, bad) = (if is_special(field) { Vec::new() } else { good }, bad);
            good.into_iter().for_each(|good| add(list(&text(good), length), None));
            bad.into_iter().for_each(|bad| add(list(&text(bad), length), Some(Named::Entry)));
        }
        Kind::String => {
            let (good, bad) = texts(&rules, in_path);
            let good = if is_special(field) && !in_path { Vec::new() } else { good };
            good.into_iter().for_each(|good| add(text(good), None));
            bad.into_iter().for_each(|bad| add(text(bad), Some(Named::Field)));
        }
        Kind::Bool => add(Value::Bool(false), rules.required.then_some(Named::Field)),
        Kind::Int32 | Kind::Int64 => {
            let number = |number| samples::number(field, number);
            rules.in_.iter().for_each(|good| add(number(*good), None));
            rules.in_.iter().for_each(|good| add(number(good + 1), Some(Named::Field)));
            for (limit, beyond) in [(rules.gte, -1), (rules.lte, 1)] {
                let Some(limit) = limit else { continue };
                add(number(limit), None);
                add(number(limit + beyond), Some(Named::Field));
            }
        }
        _ => {}
    }
    if field.is_list() && rules.joined_by.is_none() {
        let entry = match samples::value(field, Filling::All) {
            Value::List(entries) => entries[0].clone(),
            other => panic!("{other:?}"),
        };
        let min = rules.min_items.unwrap_or(usize::from(rules.required));
        add(list(&entry, min), None);
        rules.max_items.iter().for_each(|max| add(list(&entry, *max), None));
        rules.max_items.iter().for_each(|max| add(list(&entry, max + 1), Some(Named::Field)));
        (min > 0).then(|| add(list(&entry, min - 1), Some(Named::Field)));
    }
    if field.supports_presence() || field.is_list() && rules.joined_by.is_some() {
        let rejected = rules.required.then_some(Named::Field);
        cases.push(Case { value: None, rejected });
    }
    cases
}

/// Returns the entries of joined lists: the separators would change their number.
fn joined(rules: &Rules) -> (Vec<String>, Vec<String>) {
    let bad = ["", "a;b", "a,b", "a\n", "\0"].map(str::to_owned).to_vec();
    assert!(rules.max_items.is_none());
    (Vec::new(), bad)
}
