//! Part of `build.rs`: generates the checks of the request messages from the rules of their fields.

use std::fmt::{Result, Write as _};

use prost_reflect::Kind;

use crate::{
    annotations::{Api, Body, Field, Message, Place},
    options::FieldRules,
    rust::{Source, ident},
};

/// Generates the `Check` of every message in requests. Those of `custom` have a function in `validate::custom` as well,
/// for rules that annotations cannot express. It is called first.
pub(crate) fn generate(api: &Api, custom: &[(&str, &str)]) -> Source {
    let mut out = String::new();
    for message in api.reachable(api.inputs()) {
        let name = message.name();
        writeln!(out, "impl Check for crate::proto::{name} {{")?;
        writeln!(out, "#[allow(unused_variables, reason = \"a message without rules has no checks\")]")?;
        writeln!(out, "fn check(&mut self, at: &str, found: &mut Violations) {{")?;
        if let Some((_, function)) = custom.iter().find(|(message, _)| *message == name) {
            writeln!(out, "custom::{function}(self, at, found);")?;
        }
        for field in &message.fields {
            check(&mut out, field, is_in_path(api, message, field), is_body(api, message, field))?;
        }
        writeln!(out, "}}\n}}")?;
    }
    Ok(out)
}

fn is_in_path(api: &Api, message: &Message, field: &Field) -> bool {
    api.methods_with_input(message).any(|binding| binding.place(field) == Place::Path)
}

/// Returns whether the field is a message that is sent as the body, so it has to be there.
fn is_body(api: &Api, message: &Message, field: &Field) -> bool {
    field.is_single()
        && api.methods_with_input(message).any(|binding| binding.body == Body::Field(field.name().to_owned()))
}

/// Generates the check of a field.
fn check(out: &mut String, field: &Field, in_path: bool, is_body: bool) -> Result {
    let (name, rust, rules) = (field.name(), ident(field.name()), &field.rules);
    if !field.is_single() {
        items(out, name, &rust, rules)?;
    }
    match field.kind() {
        Kind::Message(_) if !field.is_single() => writeln!(out, "found.each(at, \"{name}\", &mut self.{rust});"),
        Kind::Message(_) if is_body || rules.required => {
            writeln!(out, "found.required(at, \"{name}\", self.{rust}.as_mut());")
        }
        Kind::Message(_) => writeln!(out, "found.optional(at, \"{name}\", self.{rust}.as_mut());"),
        Kind::String => text(out, field, &rust, in_path),
        Kind::Bool if rules.required => {
            writeln!(out, "if !self.{rust} {{ found.add(at, \"{name}\", \"must be true\"); }}")
        }
        _ if field.is_number() => number(out, field, &rust),
        _ => Ok(()),
    }
}

fn text(out: &mut String, field: &Field, rust: &str, in_path: bool) -> Result {
    let (name, rules) = (field.name(), &field.rules);
    // Words are replaced by their spelling.
    let (check, arguments, reference) = if let Some(separator) = &rules.joined_by {
        ("joined", format!(", {separator:?}, {}", text_rules(rules, field)), "&")
    } else if in_path || rules.id {
        ("id", String::new(), "&")
    } else if rules.words.is_empty() {
        ("text", format!(", {}", text_rules(rules, field)), "&")
    } else {
        let rule = format!("must be one of {}", rules.words.join(", "));
        ("word", format!(", &{:?}, {rule:?}", rules.words), "&mut ")
    };
    if field.is_option() {
        let call = format!("found.{check}(at, \"{name}\", value{arguments});");
        return writeln!(out, "if let Some(value) = {reference}self.{rust} {{ {call} }}");
    }
    let plural = if field.is_single() || rules.joined_by.is_some() { "" } else { "s" };
    writeln!(out, "found.{check}{plural}(at, \"{name}\", {reference}self.{rust}{arguments});")
}

/// Returns the rules of a text as an expression. `required` means at least one character.
fn text_rules(rules: &FieldRules, field: &Field) -> String {
    let required = u64::from(rules.required && field.is_single());
    let min = rules.min_len.unwrap_or_default().max(required);
    let (max, bytes) = (rules.max_len, rules.max_bytes);
    let subject = if rules.joined_by.is_some() { ", joined" } else { "" };
    let (characters, utf8) = (|number| count(number, "character"), |number| count(number, "byte") + " in UTF-8");
    let limit = match (min, max, bytes) {
        (0, None, None) => String::new(),
        (min, None, None) => format!("at least {}", characters(min)),
        (0, None, Some(bytes)) => format!("at most {}", utf8(bytes)),
        (min, None, Some(bytes)) => format!("{min} to {}", utf8(bytes)),
        (0, Some(max), _) => format!("at most {}", characters(max)),
        (min, Some(max), _) if min == max => characters(max),
        (min, Some(max), _) => format!("{min} to {}", characters(max)),
    };
    let limit = match max.and(bytes) {
        Some(bytes) => format!("{limit}, and at most {}", utf8(bytes)),
        None => limit,
    };
    let limit = if limit.is_empty() { limit } else { format!("must have {limit}{subject}") };
    format!(
        "&text::Rules {{ min_len: {min}, max_len: {}, max_bytes: {}, not_blank: {}, multiline: {}, limit: {limit:?} }}",
        unlimited(max),
        unlimited(bytes),
        rules.not_blank,
        rules.multiline,
    )
}

/// Returns a limit as an expression.
fn unlimited(limit: Option<u64>) -> String {
    limit.map_or_else(|| "usize::MAX".to_owned(), |limit| limit.to_string())
}

fn items(out: &mut String, name: &str, rust: &str, rules: &FieldRules) -> Result {
    let min = rules.min_items.unwrap_or_default().max(u64::from(rules.required));
    let (limit, condition) = match (min, rules.max_items) {
        (0, None) => return Ok(()),
        (1, None) => ("must have at least one entry".to_owned(), format!("self.{rust}.is_empty()")),
        (min, None) => (format!("must have at least {}", count(min, "entry")), format!("self.{rust}.len() < {min}")),
        (0, Some(max)) => (format!("must have at most {}", count(max, "entry")), format!("self.{rust}.len() > {max}")),
        (min, Some(max)) => (
            format!("must have {min} to {}", count(max, "entry")),
            format!("!({min}..={max}).contains(&self.{rust}.len())"),
        ),
    };
    writeln!(out, "if {condition} {{ found.add(at, \"{name}\", {limit:?}); }}")
}

fn number(out: &mut String, field: &Field, rust: &str) -> Result {
    let (name, rules) = (field.name(), &field.rules);
    let value = if field.is_option() { "value".to_owned() } else { format!("self.{rust}") };
    let (condition, limit) = match (rules.gte, rules.lte) {
        (None, None) if rules.in_.is_empty() => return Ok(()),
        (None, None) => {
            let values: Vec<_> = rules.in_.iter().map(i64::to_string).collect();
            (format!("![{}].contains(&{value})", values.join(", ")), format!("must be one of {}", values.join(", ")))
        }
        (Some(gte), None) => (format!("{value} < {gte}"), format!("must be at least {gte}")),
        (None, Some(lte)) => (format!("{value} > {lte}"), format!("must be at most {lte}")),
        (Some(gte), Some(lte)) => (format!("!({gte}..={lte}).contains(&{value})"), format!("must be {gte} to {lte}")),
    };
    let some = if field.is_option() { format!("let Some(value) = self.{rust} && ") } else { String::new() };
    writeln!(out, "if {some}{condition} {{ found.add(at, \"{name}\", {limit:?}); }}")
}

/// Returns a number and its noun, with separators of thousands.
fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let grouped = digits.char_indices().fold(String::new(), |mut text, (index, digit)| {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
        text
    });
    let plural = match noun {
        _ if number == 1 => noun.to_owned(),
        "entry" => "entries".to_owned(),
        noun => format!("{noun}s"),
    };
    format!("{grouped} {plural}")
}
