//! Holds docs/api.md, what docs/errors.md and docs/clients.md say about RPCs, and the chart's list of methods to the protos.
//! `make api-write` updates them.

#![allow(clippy::unwrap_used, dead_code, reason = "a test, with modules of the build script")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, Kind, MethodDescriptor};
use serde_json::Value as Json;

#[path = "../build/annotations.rs"]
mod annotations;
#[path = "../build/options.rs"]
mod options;
#[path = "../build/unsupported.rs"]
mod unsupported;

use annotations::{Field, Message, variables};
use options::MethodRules;

const PACKAGE: &str = "huaweicloud.scm.v1";
const INTRODUCTION: &str = "# API reference

Generated from [the protos](../proto/huaweicloud/scm/v1) by `make api-write`. Programs read the same with [server reflection](clients.md#by-hand).
";

/// The field number of `syntax` in `FileDescriptorProto`, for the location of a file's comment.
const SYNTAX: i32 = 12;

/// The protos, compiled with their comments.
struct Protos {
    pool: DescriptorPool,
    messages: Vec<Message>,
}

impl Protos {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let entries = fs::read_dir(root.join("huaweicloud/scm/v1")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort_unstable();
        let mut compiler = protox::Compiler::new([root]).unwrap();
        compiler.include_imports(true).include_source_info(true).open_files(files).unwrap();
        let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
        let messages = annotations::read(&pool, PACKAGE, &["WatchCertificate"]).unwrap().messages;
        Self { pool, messages }
    }

    fn methods(&self) -> impl Iterator<Item = MethodDescriptor> {
        let services = self.pool.services().filter(|service| service.package_name() == PACKAGE);
        services.flat_map(|service| service.methods().collect::<Vec<_>>())
    }

    fn message(&self, name: &str) -> &Message {
        self.messages.iter().find(|message| message.name() == name).unwrap()
    }

    /// Returns the API reference.
    fn reference(&self) -> String {
        let mut page = INTRODUCTION.to_owned();
        page += "\n| service | RPC | REST side | idempotent | granted by |\n|---|---|---|---|---|\n";
        for method in self.methods() {
            let (service, name) = (method.parent_service().name().to_owned(), method.name());
            let (link, rest, idempotent) = (anchor(name), rest_side(&method), is_idempotent(&method));
            let idempotent = if idempotent { "yes" } else { "no" };
            writeln!(page, "| {service} | {link} | {rest} | {idempotent} | {} |", grant(&method)).unwrap();
        }
        let first = self.pool.get_file_by_name("huaweicloud/scm/v1/certificate_service.proto").unwrap();
        let rules = prose(&file_comment(&first)).replace("\n# ", "\n### ");
        write!(page, "\n## Rules for all RPCs\n\n{rules}").unwrap();
        let mut shown = Vec::new();
        for service in self.pool.services().filter(|service| service.package_name() == PACKAGE) {
            let text = prose(&comment(&service.parent_file(), service.path()));
            write!(page, "\n## {}\n\n{text}", service.name()).unwrap();
            for method in service.methods() {
                self.method(&mut page, &method);
                shown.extend([method.input(), method.output()]);
            }
        }
        page += "\n## Other messages\n";
        for message in self.messages.iter().filter(|message| !shown.contains(&message.descriptor)) {
            self.fields(&mut page, message, "###", None);
        }
        page
    }

    fn method(&self, page: &mut String, method: &MethodDescriptor) {
        let rules = MethodRules::read(method).unwrap();
        let statuses: Vec<_> = rules.success_statuses.iter().map(u16::to_string).collect();
        let description = prose(&comment(&method.parent_file(), method.path()));
        writeln!(page, "\n### {}\n\n{description}", method.name()).unwrap();
        write!(page, "* REST side: {}", rest_side(method)).unwrap();
        for (option, what) in [("body", "body"), ("response_body", "body of the response")] {
            let field = http_rule(method).map(|rule| text(&rule, option)).unwrap_or_default();
            match field.as_str() {
                "" => {}
                "*" => write!(page, ", {what}: all other fields").unwrap(),
                field => write!(page, ", {what}: `{field}`").unwrap(),
            }
        }
        page.push('\n');
        writeln!(page, "* `idempotency_level`: {}", idempotency(method)).unwrap();
        writeln!(page, "* Granted by: {}", grant(method)).unwrap();
        if http_rule(method).is_some() {
            let empty = if rules.empty_reply { ", also without a body" } else { "" };
            writeln!(page, "* Success: HTTP {}{empty}", list(&statuses)).unwrap();
        }
        if method.is_server_streaming() {
            writeln!(page, "* The response is a stream.").unwrap();
        }
        self.fields(page, self.message(method.input().name()), "####", Some(method));
        self.fields(page, self.message(method.output().name()), "####", None);
    }

    /// Writes the table of a message. `request_of` is the RPC whose request the message is.
    fn fields(&self, page: &mut String, message: &Message, level: &str, request_of: Option<&MethodDescriptor>) {
        let file = message.descriptor.parent_file();
        let text = prose(&comment(&file, message.descriptor.path()));
        write!(page, "\n{level} {}\n\n{text}", message.name()).unwrap();
        if message.fields.is_empty() {
            return;
        }
        *page += "\n| field | type | rules | meaning |\n|---|---|---|---|\n";
        for field in &message.fields {
            let meaning = cell(&comment(&file, field.descriptor.path()));
            let rules = rules(field, request_of).join("; ");
            writeln!(page, "| `{}` | {} | {rules} | {meaning} |", field.name(), kind(field)).unwrap();
        }
    }

    /// Returns the rows of "UPSTREAM_OUTCOME_UNKNOWN": what the comment of each RPC that is not idempotent says.
    fn unknown_outcomes(&self) -> String {
        let mut rows = "| RPC | what to do |\n|---|---|\n".to_owned();
        for method in self.methods().filter(|method| !is_idempotent(method)) {
            let text = comment(&method.parent_file(), method.path());
            let paragraph =
                text.split("\n\n").find_map(|text| text.strip_prefix("After UNKNOWN (UPSTREAM_OUTCOME_UNKNOWN): "));
            let advice = paragraph.unwrap_or_else(|| panic!("{}: what to do after UNKNOWN?", method.full_name()));
            let (first, others) = advice.split_at(1);
            let advice = cell(&(first.to_uppercase() + others));
            writeln!(rows, "| [{}](api.md#{}) | {advice} |", method.name(), method.name().to_lowercase()).unwrap();
        }
        rows
    }
}

/// Returns a link to the section of an RPC or a message.
fn anchor(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn file_comment(file: &FileDescriptor) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let syntax = source.location.iter().find(|location| location.path == [SYNTAX]).unwrap();
    unindent(&syntax.leading_detached_comments[0])
}

fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let location = source.location.iter().find(|location| location.path == path).unwrap();
    let comment = location.leading_comments.as_deref();
    unindent(comment.unwrap_or_else(|| panic!("{}:{}: has no comment", file.name(), location.span[0] + 1)))
}

/// Removes the space between `//` and the text of each line.
fn unindent(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Returns a comment as Markdown. Only list items, headings and code keep their meaning.
fn prose(comment: &str) -> String {
    comment.lines().map(escape).fold(String::new(), |page, line| page + &line + "\n")
}

/// Returns a comment as a cell of a table: in one line, with its list items as sentences.
fn cell(comment: &str) -> String {
    let paragraphs =
        comment.split("\n\n").map(|text| text.replace("\n* ", "<br>* ").replace("\n  ", " ").replace('\n', " "));
    let text = paragraphs.collect::<Vec<_>>().join("<br>");
    text.split("<br>").map(|line| escape(line).replace('|', "\\|")).collect::<Vec<_>>().join("<br>")
}

/// Escapes `*`, `_` and `<` outside of code, except in words and at the start of a list item.
fn escape(line: &str) -> String {
    let (item, text) = line.strip_prefix("* ").map_or(("", line), |text| ("* ", text));
    let mut escaped = item.to_owned();
    let (mut in_code, mut before) = (false, ' ');
    for (index, char) in text.char_indices() {
        let after = text[index + char.len_utf8()..].chars().next().unwrap_or(' ');
        let in_word = char == '_' && before.is_alphanumeric() && after.is_alphanumeric();
        in_code ^= char == '`';
        if "*_<".contains(char) && !in_code && !in_word {
            escaped.push('\\');
        }
        escaped.push(char);
        before = char;
    }
    escaped
}

fn http_rule(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name("google.api.http").unwrap();
    let options = method.options();
    let rule = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())?;
    rule.as_message().cloned()
}

/// Returns a text of the rule, "" if it is not set.
fn text(rule: &DynamicMessage, field: &str) -> String {
    rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Returns the HTTP method and the path template.
fn verb_and_path(rule: &DynamicMessage) -> (String, String) {
    let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb)).unwrap();
    (verb.to_uppercase(), text(rule, verb))
}

fn rest_side(method: &MethodDescriptor) -> String {
    http_rule(method).map_or("none".to_owned(), |rule| {
        let (verb, path) = verb_and_path(&rule);
        format!("`{verb} {path}`")
    })
}

/// Returns the `idempotency_level`, as in `google/protobuf/descriptor.proto`.
fn level(method: &MethodDescriptor) -> i32 {
    let options = method.method_descriptor_proto().options.as_ref();
    options.and_then(|options| options.idempotency_level).unwrap_or_default()
}

fn idempotency(method: &MethodDescriptor) -> &'static str {
    match level(method) {
        0 => "unset: not idempotent",
        1 => "NO_SIDE_EFFECTS",
        _ => "IDEMPOTENT",
    }
}

fn is_idempotent(method: &MethodDescriptor) -> bool {
    level(method) != 0
}

fn grant(method: &MethodDescriptor) -> &'static str {
    match level(method) {
        _ if MethodRules::read(method).unwrap().grant_by_name => "its name only",
        1 => "`\"read\"`, `\"*\"` or its name",
        _ => "`\"*\"` or its name",
    }
}

fn kind(field: &Field) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => anchor(message.name()),
        kind => format!("{kind:?}"),
    };
    match () {
        () if !field.is_single() => format!("repeated {kind}"),
        () if field.descriptor.field_descriptor_proto().proto3_optional() => format!("optional {kind}"),
        () => kind,
    }
}

/// Returns the rules of a field in words.
fn rules(field: &Field, request_of: Option<&MethodDescriptor>) -> Vec<String> {
    let rule = request_of.and_then(http_rule);
    let in_path = rule.as_ref().is_some_and(|rule| variables(&verb_and_path(rule).1).contains(&field.name()));
    let in_query = rule.is_some_and(|rule| !in_path && field.name() != "project_id" && text(&rule, "body").is_empty());
    let rules = &field.rules;
    let say = |condition: bool, rule: &str| condition.then(|| rule.to_owned());
    let name = |rule: &Option<String>, words: &str| rule.as_ref().map(|name| format!("{words} `{name}`"));
    let numbers: Vec<_> = rules.in_.iter().map(i64::to_string).collect();
    let aliases: Vec<_> = rules.json_aliases.iter().map(|alias| format!("`{alias}`")).collect();
    let all = [
        say(in_path, "in the path"),
        say(in_query, "in the query"),
        say(rules.routing_only, "not sent"),
        say(rules.required, "required"),
        say(rules.id || in_path && field.name() != "project_id", "an id"),
        range(rules.min_len, rules.max_len, "characters"),
        range(None, rules.max_bytes, "bytes"),
        range(rules.min_items, rules.max_items, "entries"),
        range(rules.gte, rules.lte, ""),
        say(!numbers.is_empty(), &list(&numbers)),
        say(!rules.words.is_empty(), &list(&rules.words)),
        say(rules.not_blank, "not blank"),
        say(rules.multiline, "may have line ends and tabs"),
        say(rules.send_empty, "sent if empty"),
        name(&rules.joined_by, "joined by"),
        name(&rules.acknowledgement, "always"),
        say(field.key != field.name(), &format!("JSON key `{}`", field.key)),
        say(!aliases.is_empty(), &format!("JSON key also {}", list(&aliases))),
        rules.is_nonempty.as_ref().map(|name| format!("whether `{name}` is not empty")),
        say(field.secret, "secret"),
    ];
    all.into_iter().flatten().collect()
}

/// Returns the limits of a number or a length in words.
fn range<N: ToString>(min: Option<N>, max: Option<N>, unit: &str) -> Option<String> {
    let limits = match (min.map(|min| min.to_string()), max.map(|max| max.to_string())) {
        (None, None) => return None,
        (Some(min), None) => format!("{min} or more"),
        (None, Some(max)) => format!("at most {max}"),
        (Some(min), Some(max)) if min == max => min,
        (Some(min), Some(max)) => format!("{min} to {max}"),
    };
    Some(format!("{limits} {unit}").trim_end().to_owned())
}

/// Returns words as "a, b or c".
fn list(words: &[String]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        words => words.join(", "),
    }
}

/// Returns a page, relative to the repository.
fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// Compares a page with what it has to be, or writes it if `UPDATE` is set.
fn compare(path: &str, expected: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), expected).unwrap();
    }
    let is_current = page(path) == expected;
    assert!(is_current, "{path} differs from the protos: run `make api-write`");
}

#[test]
fn api_reference_is_that_of_the_protos() {
    compare("docs/api.md", &Protos::read().reference());
}

#[test]
fn chart_has_each_method_with_its_path_and_words() {
    let rpc = |method: &MethodDescriptor| {
        let words: &[&str] = match level(method) {
            _ if MethodRules::read(method).unwrap().grant_by_name => &[],
            1 => &["read", "*"],
            _ => &["*"],
        };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        (method.name().to_owned(), serde_json::json!({"path": path, "words": words}))
    };
    let rpcs: BTreeMap<_, _> = Protos::read().methods().map(|method| rpc(&method)).collect();
    compare("deploy/helm/scm-gateway/files/methods.json", &(serde_json::to_string_pretty(&rpcs).unwrap() + "\n"));
}

#[test]
fn errors_page_has_the_advice_of_each_unsafe_rpc() {
    const HEADING: &str = "### UPSTREAM_OUTCOME_UNKNOWN\n";
    let (path, rows) = ("docs/errors.md", Protos::read().unknown_outcomes());
    let page = page(path);
    let (before, section) = page.split_once(HEADING).unwrap();
    let (introduction, table) = section.split_once("| RPC |").unwrap();
    let rest = table.split_once("\n\n").unwrap().1;
    compare(path, &format!("{before}{HEADING}{introduction}{rows}\n{rest}"));
}

#[test]
fn service_config_retries_only_idempotent_methods() {
    let protos = Protos::read();
    let idempotent: BTreeMap<_, _> =
        protos.methods().map(|method| (method.full_name().to_owned(), is_idempotent(&method))).collect();
    let page = page("docs/clients.md");
    let configs: Vec<_> = page.split("```json\n").skip(1).map(|text| text.split("```").next().unwrap()).collect();
    assert!(!configs.is_empty());
    for config in configs {
        let config: Json = serde_json::from_str(config).unwrap();
        let retried =
            config["methodConfig"].as_array().unwrap().iter().filter(|entry| entry.get("retryPolicy").is_some());
        for name in retried.flat_map(|entry| entry["name"].as_array().unwrap()) {
            let method = name["method"].as_str().unwrap_or_else(|| panic!("{name} retries a whole service"));
            let name = format!("{}.{method}", name["service"].as_str().unwrap());
            assert_eq!(idempotent.get(&name), Some(&true), "{name}");
        }
    }
}
