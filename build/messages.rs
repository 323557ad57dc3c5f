//! Part of `build.rs`: generates what messages need beside their fields: `Debug`, wiping, and their JSON.

use std::fmt::{Result, Write as _};

use prost_reflect::Kind;

use crate::{
    annotations::{Api, Field, Message},
    rust::{Source, ident},
};

/// Generates a `Debug` for each message, which shows only the type, because messages hold personal data. Messages with
/// secrets wipe them on drop.
pub(crate) fn debug_and_drop(api: &Api) -> Source {
    let mut out = String::new();
    for message in &api.messages {
        let name = message.name();
        writeln!(
            out,
            "impl std::fmt::Debug for {name} {{
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"{name}([REDACTED])\") }}
            }}"
        )?;
        let secrets: Vec<_> = message.fields.iter().filter(|field| field.secret).collect();
        if !secrets.is_empty() {
            writeln!(out, "impl std::ops::Drop for {name} {{\nfn drop(&mut self) {{")?;
            for field in secrets {
                writeln!(out, "zeroize::Zeroize::zeroize(&mut self.{});", ident(field.name()))?;
            }
            writeln!(out, "}}\n}}")?;
        }
    }
    Ok(out)
}

/// Generates the JSON of the messages in request bodies, and the reading of the replies from JSON. The replies in
/// `custom` are read by hand-written code.
pub(crate) fn json(api: &Api, custom: &[&str]) -> Source {
    let mut out = String::new();
    let inputs = api.methods.iter().filter_map(|binding| api.message(&binding.method.input()));
    let inner = inputs.flat_map(|message| &message.fields).filter_map(|field| field.kind().as_message().cloned());
    for message in api.reachable(inner) {
        writeln!(out, "impl crate::json::WriteJson for proto::{} {{", message.name())?;
        write_json(&mut out, "self", &message.fields.iter().collect::<Vec<_>>())?;
        writeln!(out, "}}")?;
    }
    for message in api.reachable(api.methods.iter().map(|binding| binding.method.output())) {
        if !custom.contains(&message.name()) {
            read(&mut out, api, message)?;
        }
    }
    Ok(out)
}

/// Generates `WriteJson::write_json` for these fields of the message that is `value`.
pub(crate) fn write_json(out: &mut String, value: &str, fields: &[&Field]) -> Result {
    writeln!(out, "fn write_json(&self, json: &mut impl std::io::Write) {{")?;
    writeln!(out, "let mut object = crate::json::Object::new(json);")?;
    for field in fields {
        let (key, rust) = (&field.key, format!("{value}.{}", ident(field.name())));
        let member = |of: &str| format!("object.member({key:?}, {of});");
        let source = match &field.rules.joined_by {
            Some(separator) => member(&format!("&Joined(&{rust}, {separator:?})")),
            None => member(&format!("&{rust}")),
        };
        if field.is_option() {
            writeln!(out, "if let Some(value) = &{rust} {{ {} }}", member("value"))?;
        } else if !field.is_single() && !field.rules.send_empty {
            writeln!(out, "if !{rust}.is_empty() {{ {source} }}")?;
        } else {
            writeln!(out, "{source}")?;
        }
    }
    writeln!(out, "object.end();\n}}")
}

/// Generates how a reply is read from JSON.
fn read(out: &mut String, api: &Api, message: &Message) -> Result {
    let name = message.name();
    let response_body = api
        .methods
        .iter()
        .filter(|binding| binding.method.output() == message.descriptor)
        .find_map(|binding| message.field(binding.response_body.as_deref()?));
    writeln!(out, "impl ReadJson for proto::{name} {{")?;
    match response_body {
        Some(field) => read_response_body(out, field)?,
        None => read_fields(out, message)?,
    }
    writeln!(out, "}}")
}

/// Generates the reading of a reply that has the whole response in one field.
fn read_response_body(out: &mut String, field: &Field) -> Result {
    let rust = ident(field.name());
    if !field.is_single() {
        writeln!(
            out,
            "fn read_array<'de, A: serde::de::SeqAccess<'de>>(&mut self, array: A) -> Result<(), A::Error> {{
                self.{rust} = {}::entries(array)?; Ok(())
            }}",
            reader(field)
        )?;
    }
    let Kind::Message(inner) = field.kind() else {
        return writeln!(out, "const FORM: super::Form = super::Form::Values;");
    };
    let inner = format!("proto::{}", inner.name());
    if !field.is_single() {
        return writeln!(
            out,
            "const FORM: super::Form = super::Form::Objects;
            fn empty() -> Self {{ Self {{ {rust}: vec![{inner}::empty()] }} }}
            fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {{
                self.{rust}.first_mut().map_or(Ok(false), |entry| entry.read(key, map))
            }}
            fn finish(&mut self) {{ self.{rust}.iter_mut().for_each({inner}::finish); }}"
        );
    }
    writeln!(
        out,
        "fn empty() -> Self {{ Self {{ {rust}: Some({inner}::empty()) }} }}
        fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {{
            self.{rust}.get_or_insert_with({inner}::empty).read(key, map)
        }}
        fn is_acknowledged(&self) -> bool {{ self.{rust}.as_ref().is_some_and({inner}::is_acknowledged) }}
        fn finish(&mut self) {{ self.{rust}.iter_mut().for_each({inner}::finish); }}"
    )
}

fn read_fields(out: &mut String, message: &Message) -> Result {
    let in_json: Vec<_> = message.fields.iter().filter(|field| field.rules.is_nonempty.is_none()).collect();
    if !in_json.is_empty() {
        writeln!(
            out,
            "fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {{
            match key {{"
        )?;
        for field in in_json {
            let keys: Vec<_> = field.keys().map(|key| format!("{key:?}")).collect();
            writeln!(out, "{} => {}", keys.join(" | "), read_field(field, keys.len() > 1))?;
        }
        writeln!(out, "_ => return Ok(false),\n}}\nOk(true)\n}}")?;
    }
    let acknowledgements = message.fields.iter().filter(|field| field.rules.acknowledgement.is_some());
    let conditions: Vec<_> =
        acknowledgements.map(|field| format!("!self.{}.is_empty()", ident(field.name()))).collect();
    if !conditions.is_empty() {
        writeln!(out, "fn is_acknowledged(&self) -> bool {{ {} }}", conditions.join(" && "))?;
    }
    let computed = message.fields.iter().filter_map(|field| Some((field, field.rules.is_nonempty.as_ref()?)));
    let computed: Vec<_> = computed
        .map(|(field, of)| {
            let is_option = message.field(of).is_some_and(Field::is_option);
            let of = ident(of);
            let value = if is_option {
                format!("self.{of}.as_ref().is_some_and(|text| !text.is_empty())")
            } else {
                format!("!self.{of}.is_empty()")
            };
            format!("self.{} = {value};", ident(field.name()))
        })
        .collect();
    if !computed.is_empty() {
        writeln!(out, "fn finish(&mut self) {{ {} }}", computed.join(" "))?;
    }
    Ok(())
}

/// Returns the expression that reads a field. The last value of a key counts, and each has to be readable. `null` is the
/// default value, but does not replace the value of another key.
fn read_field(field: &Field, has_aliases: bool) -> String {
    let (rust, reader) = (ident(field.name()), reader(field));
    if let Some(word) = &field.rules.acknowledgement {
        return format!("self.{rust} = acknowledgement(map, {word:?}, &self.{rust})?,");
    }
    if field.rules.joined_by.is_some() {
        return format!("self.{rust} = split(map)?,");
    }
    if !field.is_single() {
        return format!("self.{rust} = {reader}::list(map)?,");
    }
    let value = format!("{reader}::value(map)?");
    if field.secret {
        // Another value of the same key must not leave the first one behind.
        let assign = if field.is_option() { value } else { format!("{value}.unwrap_or_default()") };
        return format!(
            "{{ let value = {assign}; zeroize::Zeroize::zeroize(&mut self.{rust}); self.{rust} = value; }}"
        );
    }
    match (field.is_option(), has_aliases) {
        (true, false) => format!("self.{rust} = {value},"),
        (false, false) => format!("self.{rust} = {value}.unwrap_or_default(),"),
        (true, true) => format!("self.{rust} = {value}.or(self.{rust}.take()),"),
        (false, true) => format!("if let Some(value) = {value} {{ self.{rust} = value; }}"),
    }
}

/// Returns the type that reads a value of the field.
fn reader(field: &Field) -> String {
    let is_id = field.key == "id" || field.key.ends_with("_id");
    match field.kind() {
        Kind::Message(message) => format!("Object::<proto::{}>", message.name()),
        Kind::String if is_id => "Id".to_owned(),
        Kind::String => "Text".to_owned(),
        Kind::Bool => "Flag".to_owned(),
        Kind::Int32 => "Number::<i32>".to_owned(),
        _ => "Number::<i64>".to_owned(),
    }
}
