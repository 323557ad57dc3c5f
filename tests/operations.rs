//! The protos agree with the facts about SCM in `tests/operations.json`: paths, successes, permissions, and every field.
//!
//! What the annotations have to be follows from the facts. Where they differ, a table says why.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{FieldDescriptor, Kind};
use scm_harness::{
    facts::{EMPTY, NOT_OFFERED, success_statuses},
    rpc::{Rpc, Rules, is_secret, json_key, rpcs},
};
use serde::Deserialize;
use serde_json::Value;

/// Path variables with another name. The last one has only one value.
const PATHS: [(&str, &str); 4] = [
    ("{certificate_id}", "{cert_id}"),
    ("{resource_id}", "{cert_id}"),
    ("{id}", "{csr_id}"),
    ("{resource_instances}", "resource_instances"),
];

/// The fields that are the body. The body of other RPCs is all that is not bound otherwise.
const BODIES: [(&str, &str); 3] =
    [("SaveInfo", "info"), ("DisableNotification", "notices"), ("EnableNotification", "notices")];

/// Fields with another name than their key.
const NAMES: [(&str, &str, &str); 1] = [("ShowCertificate", "authentification", "domain_proofs")];

/// Keys of responses that have no field of their own: both are read into one.
const NO_FIELD: [(&str, &str); 1] = [("CheckCsr", "domain_name")];

/// Fields that no response of the operation has, and why.
const NO_KEY: [(&str, &str, &str); 2] = [
    ("BatchPushCertificate", "results.pushed", "whether cert_id is not empty"),
    ("CreateCsr", "csr", "the message is that of ShowCsr, which has it"),
];

/// The operation whose response is read by code, because its keys differ from those of SaveInfo.
const READ_BY_CODE: &str = "ReadInfo";

/// Words that the vendor does not add to. Other lists of words are open.
const CLOSED_WORDS: [&str; 8] = [
    "sort_dir",
    "sort_key",
    "domain_method",
    "target_service",
    "service_name",
    "service_names",
    "action",
    "modify_key",
];

/// Ids in bodies.
const IDS: [&str; 2] = ["certificate_ids", "resource_id"];

/// Texts that are lists in the proto.
const JOINED: [&str; 3] = ["sans", "ori_sans", "add_sans"];

/// PEM texts, which have line ends.
const MULTILINE: [&str; 6] =
    ["csr", "certificate", "certificate_chain", "private_key", "enc_certificate", "enc_private_key"];

/// Texts of responses that acknowledge the request, and their words.
const ACKNOWLEDGEMENTS: [(&str, &str); 3] =
    [("request_info", "success"), ("response_info", "success"), ("unsubscribe_results", "SUCCESS")];

/// A scalar whose presence is not what "required" says: it is always sent.
const ALWAYS_SENT: (&str, &str) = ("SaveInfo", "csr");

/// A message that is in requests and responses, and has the rules of requests.
const SHARED: &str = "Tag";

/// An operation, a field, its rules beyond the facts, and why.
type Exception = (&'static str, &'static str, fn(&mut Rules), &'static str);

const CONTRACT: &str = "the contract says so";
const NOT_REQUIRED: &str = "the contract: may be empty";
const SENT_EMPTY: &str = "the contract: sent when empty";
const OPENAPI: &str = "only the vendor's OpenAPI definition has a limit";

const EXCEPTIONS: [Exception; 27] = [
    (
        "SubscribeCertificate",
        "effective_time",
        |r| (r.gte, r.lte) = (Some(0), Some(3)),
        "OpenAPI: 1 to 3; Terraform sends 0",
    ),
    (
        "SubscribeCertificate",
        "domain_numbers",
        |r| (r.gte, r.lte) = (Some(1), Some(250)),
        "OpenAPI: 1 to 100; Terraform: 250",
    ),
    ("SubscribeCertificate", "tags", |r| r.max_items = Some(10), OPENAPI),
    ("ListCertificatesByTag", "matches", |r| r.max_items = Some(10), OPENAPI),
    ("PushCertificate", "target_project", |r| (r.required, r.max_len) = (false, Some(255)), NOT_REQUIRED),
    ("ModifyCertificate", "modify_value", |r| r.required = false, NOT_REQUIRED),
    ("BatchCreateOrDeleteTags", "tags", |r| r.required = true, CONTRACT),
    ("SaveInfo", "sans", |r| r.send_empty = true, SENT_EMPTY),
    ("SaveInfo", "csr", bytes_of_csr, CONTRACT),
    ("SaveInfo", "company_name", |r| r.required = false, NOT_REQUIRED),
    ("SaveInfo", "company_province", |r| r.required = false, NOT_REQUIRED),
    ("SaveInfo", "company_city", |r| r.required = false, NOT_REQUIRED),
    ("SaveInfo", "applicant_name", |r| r.not_blank = true, CONTRACT),
    ("SaveInfo", "applicant_phone", |r| (r.max_len, r.not_blank) = (Some(255), true), CONTRACT),
    ("SaveInfo", "applicant_email", |r| (r.max_len, r.not_blank) = (Some(255), true), CONTRACT),
    ("SaveInfo", "contact_phone", |r| r.max_len = Some(255), CONTRACT),
    ("SaveInfo", "contact_email", |r| r.max_len = Some(255), CONTRACT),
    ("ApplyCertificate", "applicant_name", |r| (r.max_bytes, r.not_blank) = (Some(100), true), CONTRACT),
    ("ApplyCertificate", "csr", bytes_of_csr, CONTRACT),
    ("CheckCsr", "csr", bytes_of_csr, CONTRACT),
    ("UploadCsr", "private_key", |r| r.max_len = Some(4096), "the contract: as that of ImportCertificate"),
    ("ListCertificatesByTag", "tags.values", |r| r.send_empty = true, SENT_EMPTY),
    ("ListCertificatesByTag", "tags_any.values", |r| r.send_empty = true, SENT_EMPTY),
    ("ListCertificatesByTag", "not_tags.values", |r| r.send_empty = true, SENT_EMPTY),
    ("ListCertificatesByTag", "not_tags_any.values", |r| r.send_empty = true, SENT_EMPTY),
    (
        "CheckCsr",
        "domain",
        |r| r.json_aliases = vec!["domain_name".to_owned()],
        "table and sample differ: both are read",
    ),
    (
        "ShowCertificate",
        "signature_algorithm",
        |r| r.json_aliases = vec!["signature_algrithm".to_owned()],
        "an old page has this key",
    ),
];

fn bytes_of_csr(rules: &mut Rules) {
    (rules.max_len, rules.max_bytes) = (None, Some(5120));
}

#[derive(Deserialize)]
struct Operation {
    name: String,
    http_method: String,
    path: String,
    query: Vec<Fact>,
    body_kind: String,
    body: Vec<Fact>,
    response_kind: String,
    response: Vec<Fact>,
    success_status: Vec<u16>,
    safety: String,
    iam: Option<String>,
    #[serde(default)]
    destructive: bool,
    #[serde(default)]
    costs_money: bool,
    #[serde(default)]
    returns_secret: bool,
}

/// What is known of a field.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fact {
    name: String,
    r#type: String,
    items: String,
    format: String,
    required: bool,
    r#const: Value,
    r#enum: Vec<Value>,
    item_enum: Vec<Value>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    item_min_length: Option<usize>,
    item_max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    secret: bool,
    nested: Vec<Fact>,
}

impl Fact {
    /// Returns the rules that follow for a field of a request.
    fn rules(&self, operation: &str) -> Rules {
        let name = self.name.as_str();
        let is_number = self.r#type == "integer";
        let mut rules = Rules {
            required: !is_number && (self.required || self.r#const == true),
            min_items: self.min_items,
            max_items: self.max_items,
            joined_by: JOINED.contains(&name).then(|| separator(operation).to_owned()),
            multiline: MULTILINE.contains(&name),
            ..Rules::default()
        };
        let words = if self.r#enum.is_empty() { &self.item_enum } else { &self.r#enum };
        if is_number && !words.is_empty() {
            rules.in_ = words.iter().map(|number| number.as_i64().unwrap()).collect();
        } else if is_number {
            (rules.gte, rules.lte) = (self.minimum, self.maximum);
        } else if CLOSED_WORDS.contains(&name) {
            rules.words = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        } else if IDS.contains(&name) {
            rules.id = true;
        } else {
            rules.min_len = self.min_length.or(self.item_min_length).filter(|min| *min > 0);
            rules.max_len = self.max_length.or(self.item_max_length);
        }
        rules
    }

    /// Returns the type of the field, and whether it is a list.
    fn kind(&self) -> (&str, bool) {
        match self.r#type.as_str() {
            "array" => (&self.items, true),
            "integer" if self.format == "int64" => ("int64", false),
            "integer" => ("int32", false),
            other => (other, JOINED.contains(&self.name.as_str())),
        }
    }
}

fn separator(operation: &str) -> &'static str {
    if operation.contains("Csr") { "," } else { ";" }
}

fn kind(field: &FieldDescriptor) -> (&'static str, bool) {
    let kind = match field.kind() {
        Kind::String => "string",
        Kind::Bool => "boolean",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Message(_) => "object",
        other => panic!("{other:?}"),
    };
    (kind, field.is_list())
}

/// The differences, and the exceptions that explained something.
#[derive(Default)]
struct Report {
    problems: Vec<String>,
    used: BTreeSet<(String, String)>,
}

impl Report {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.problems.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }

    /// Applies the exception of a field, which has to change something.
    fn apply(&mut self, operation: &str, path: &str, rules: &mut Rules) {
        for (_, _, change, _) in EXCEPTIONS.iter().filter(|row| (row.0, row.1) == (operation, path)) {
            let before = rules.clone();
            change(rules);
            if before == *rules {
                self.problems.push(format!("{operation} {path}: the exception changes nothing"));
            }
            self.used.insert((operation.to_owned(), path.to_owned()));
        }
    }

    fn method(&mut self, rpc: &Rpc, operation: &Operation) {
        let name = rpc.name();
        let path = PATHS.iter().fold(operation.path.clone(), |path, (theirs, ours)| path.replace(theirs, ours));
        self.expect(name, (&rpc.verb, &rpc.template), (&operation.http_method, &path));
        let body = match operation.body_kind.as_str() {
            "none" => "",
            _ => BODIES.iter().find(|row| row.0 == name).map_or("*", |row| row.1),
        };
        self.expect(name, rpc.body.as_str(), body);
        let safety = match (rpc.read_only, rpc.idempotent) {
            (true, _) => "read",
            (false, true) => "idempotent",
            (false, false) => "unsafe",
        };
        self.expect(name, safety, &operation.safety);
        let is_empty = rpc.method.output().fields().count() == 0;
        let statuses = success_statuses(rpc);
        self.expect(name, rpc.success_statuses.as_slice(), statuses);
        let unknown = operation.success_status.iter().find(|status| !statuses.contains(status));
        self.expect(name, unknown, None);
        self.expect(name, rpc.empty_reply, statuses == EMPTY);
        self.expect(name, is_empty, operation.response_kind == "empty");
        let by_name = operation.destructive || operation.costs_money || operation.returns_secret;
        self.expect(name, rpc.grant_by_name, by_name);
        self.routing(rpc);
    }

    /// `project_id` is the first field, and the path variables follow in their order.
    fn routing(&mut self, rpc: &Rpc) {
        let fields: Vec<_> = rpc.method.input().fields().collect();
        let variables = rpc.variables();
        let others = variables.iter().copied().filter(|variable| *variable != "project_id");
        for (index, name) in ["project_id"].into_iter().chain(others).enumerate() {
            let field = &fields[index];
            self.expect(rpc.name(), (field.name(), field.number() as usize), (name, index + 1));
            let routing_only = name == "project_id" && !variables.contains(&name);
            self.expect(rpc.name(), Rules::of(field), Rules { routing_only, ..Rules::default() });
            self.expect(rpc.name(), (kind(field), field.supports_presence()), (("string", false), false));
        }
    }

    fn field(&mut self, operation: &str, path: &str, fact: &Fact, field: &FieldDescriptor) {
        let what = format!("{operation} {path}");
        let renamed = NAMES.iter().find(|row| (row.0, row.1) == (operation, path)).map(|row| row.2);
        self.expect(&what, field.name(), renamed.unwrap_or(&fact.name));
        self.expect(&what, kind(field), fact.kind());
        self.expect(&what, is_secret(field), fact.secret);
    }

    fn request(&mut self, operation: &str, prefix: &str, facts: &[&Fact], fields: &[FieldDescriptor]) {
        let keys: Vec<_> = fields.iter().map(json_key).collect();
        self.expect(operation, keys, facts.iter().map(|fact| fact.name.clone()).collect());
        for (fact, field) in facts.iter().zip(fields) {
            let path = format!("{prefix}{}", fact.name);
            self.field(operation, &path, fact, field);
            let mut rules = fact.rules(operation);
            self.apply(operation, &path, &mut rules);
            let what = format!("{operation} {path}");
            self.expect(&what, Rules::of(field), rules);
            let (kind, is_list) = kind(field);
            if !is_list && kind != "object" {
                let is_optional = !fact.required && (operation, path.as_str()) != ALWAYS_SENT;
                self.expect(&what, field.supports_presence(), is_optional);
            }
            if let Kind::Message(inner) = field.kind() {
                let nested: Vec<_> = fact.nested.iter().collect();
                self.request(operation, &format!("{path}."), &nested, &inner.fields().collect::<Vec<_>>());
            }
        }
    }

    fn response(&mut self, operation: &str, prefix: &str, facts: &[Fact], fields: Vec<FieldDescriptor>) {
        let has_key = |field: &FieldDescriptor| {
            !NO_KEY.iter().any(|row| (row.0, row.1) == (operation, &format!("{prefix}{}", field.name())))
        };
        let fields: Vec<_> = fields.into_iter().filter(has_key).collect();
        let facts: Vec<_> = facts.iter().filter(|fact| !NO_FIELD.contains(&(operation, fact.name.as_str()))).collect();
        let keys: Vec<_> = fields.iter().map(json_key).collect();
        self.expect(operation, keys, facts.iter().map(|fact| fact.name.clone()).collect());
        for (fact, field) in facts.into_iter().zip(fields) {
            let path = format!("{prefix}{}", fact.name);
            self.field(operation, &path, fact, &field);
            let is_shared = field.parent_message().name() == SHARED;
            let acknowledgement = ACKNOWLEDGEMENTS.iter().find(|row| row.0 == path).map(|row| row.1.to_owned());
            let joined_by = JOINED.contains(&fact.name.as_str()).then(|| separator(operation).to_owned());
            let mut rules = Rules { acknowledgement, joined_by, ..Rules::default() };
            self.apply(operation, &path, &mut rules);
            let what = format!("{operation} {path} of the response");
            if !is_shared {
                self.expect(&what, Rules::of(&field), rules);
                let is_scalar = !matches!(field.kind(), Kind::Message(_));
                self.expect(&what, is_scalar && field.supports_presence(), false);
            }
            if let Kind::Message(inner) = field.kind() {
                self.response(operation, &format!("{path}."), &fact.nested, inner.fields().collect());
            }
        }
    }
}

/// Returns the fields of a request that are in query or body.
fn sent_fields(rpc: &Rpc) -> Vec<FieldDescriptor> {
    let variables = rpc.variables();
    let request = rpc.method.input();
    let fields = request.fields().filter(|field| field.name() != "project_id" && !variables.contains(&field.name()));
    match fields.collect::<Vec<_>>().as_slice() {
        [field] if field.name() == rpc.body => {
            assert_eq!(Rules::of(field), Rules { required: true, ..Rules::default() });
            field.kind().as_message().unwrap().fields().collect()
        }
        fields => fields.to_vec(),
    }
}

/// Returns the operations of the vendor by name.
fn operations() -> BTreeMap<String, Operation> {
    let operations: Vec<Operation> = serde_json::from_str(include_str!("operations.json")).unwrap();
    operations.into_iter().map(|operation| (operation.name.clone(), operation)).collect()
}

#[test]
fn annotations_follow_from_the_facts_about_scm() {
    let operations = operations();
    let rpcs: BTreeMap<_, _> = rpcs().into_iter().map(|rpc| (rpc.name().to_owned(), rpc)).collect();
    let mut report = Report::default();
    let offered: BTreeSet<_> =
        operations.keys().filter(|name| !NOT_OFFERED.iter().any(|row| row.0 == **name)).collect();
    report.expect("RPCs", rpcs.keys().collect(), offered);
    for (name, rpc) in &rpcs {
        let operation = &operations[name];
        report.method(rpc, operation);
        let facts: Vec<_> = operation.query.iter().chain(&operation.body).collect();
        report.request(name, "", &facts, &sent_fields(rpc));
        if name != READ_BY_CODE {
            report.response(name, "", &operation.response, rpc.reply_object().fields().collect());
        }
    }
    let exceptions = EXCEPTIONS.iter().map(|row| (row.0.to_owned(), row.1.to_owned())).collect();
    let used = std::mem::take(&mut report.used);
    report.expect("exceptions", used, exceptions);
    assert!(report.problems.is_empty(), "{}", report.problems.join("\n"));
}

#[test]
fn rpcs_stand_in_the_services_of_the_contract() {
    let count =
        |service: &str| rpcs().iter().filter(|rpc| rpc.service() == format!("huaweicloud.scm.v1.{service}")).count();
    let services = [
        ("CertificateService", 20),
        ("OrderService", 4),
        ("TagService", 5),
        ("CsrService", 7),
        ("NotificationService", 2),
    ];
    for (service, expected) in services {
        assert_eq!(count(service), expected, "{service}");
    }
    assert_eq!(rpcs().len(), 38);
}

/// Returns the actions of IAM in a text, such as `scm:cert:get` and `scm::listCsr`.
fn actions(text: &str) -> Vec<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != ':');
    words.filter(|word| word.split(':').count() == 3).collect()
}

/// The RPC that has no operation of its own, and the operation that it calls.
const WATCH: (&str, &str) = ("WatchCertificate", "ShowCertificate");

#[test]
fn documented_iam_actions_are_those_of_the_facts() {
    let operations = operations();
    let page = include_str!("../docs/credentials.md");
    let section = page.split("## Permissions in IAM").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeMap<_, _> = rows.map(|(rpc, row)| (rpc.to_owned(), row)).collect();

    let rpcs = rpcs();
    let called = rpcs.iter().map(|rpc| (rpc.name(), rpc.name())).chain([WATCH]);
    let facts: BTreeMap<_, _> = called
        .map(|(rpc, name)| (rpc.to_owned(), operations[name].iam.as_deref().unwrap_or("not documented")))
        .collect();
    assert_eq!(documented.keys().collect::<Vec<_>>(), facts.keys().collect::<Vec<_>>());
    for (rpc, fact) in &facts {
        assert_eq!(actions(documented[rpc]), actions(fact), "{rpc}");
        assert_eq!(documented[rpc].contains("not documented"), actions(fact).is_empty(), "{rpc}");
    }

    let by_name: BTreeSet<_> = rpcs.iter().filter(|rpc| rpc.grant_by_name).map(Rpc::name).collect();
    let default = facts.iter().filter(|(rpc, _)| !by_name.contains(rpc.as_str()));
    let wanted: BTreeSet<_> = default.filter_map(|(_, fact)| actions(fact).first().copied()).collect();
    let policy: Value = serde_json::from_str(section.split("```").nth(1).unwrap().trim_start_matches("json")).unwrap();
    let granted: Vec<_> =
        policy["Statement"][0]["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap()).collect();
    assert_eq!(granted, wanted.into_iter().collect::<Vec<_>>());
}
