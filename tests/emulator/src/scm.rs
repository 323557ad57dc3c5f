//! The SCM service: two routes, the stored drafts, and the vendor's error bodies.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::http::Request;
use crate::script::{Reply, Script, Step};
use crate::time::imf_fixdate;
use crate::{Account, Options, fields};

type Drafts = HashMap<(String, String), Value>;

/// The stored drafts, by project and certificate.
#[derive(Debug, Default)]
pub(crate) struct Scm(Mutex<Drafts>);

/// An error of SCM itself: status, code, text.
type Failure = (u16, &'static str, String);

impl Scm {
    pub(crate) fn saved(&self, project: &str, certificate: &str) -> Option<Value> {
        self.drafts().get(&key(project, certificate)).cloned()
    }

    /// Serves a request with a valid signature.
    pub(crate) fn serve(&self, request: &Request, account: &Account, options: &Options) -> Reply {
        let Some((project, certificate, action)) = route(request.path()) else {
            let text = "The API does not exist or has not been published in the environment";
            return gateway_error(404, "APIG.0101", text);
        };
        if request.method != "POST" {
            return gateway_error(405, "APIG.0101", "The method is not allowed").header("Allow", "POST");
        }
        if !account.projects.iter().any(|known| known == project) {
            return failure((403, "SCM.0002", "The project id does not fit".to_owned()));
        }
        let outcome = match action {
            Action::Save => self.save(request, options, project, certificate),
            Action::Read => self.read(request, options, project, certificate),
        };
        outcome.map_or_else(failure, |body| answer(200, &body))
    }

    fn save(&self, request: &Request, options: &Options, project: &str, certificate: &str) -> Result<Value, Failure> {
        if !is_json(request) {
            return Err(invalid("the content type is not application/json"));
        }
        let draft = fields::parse(&request.body).map_err(|text| invalid(&text))?;
        check_certificate(options, certificate)?;
        if options.issued.iter().any(|id| id == certificate) {
            let text = "The operation is not allowed in the certificate's state";
            return Err((400, "SCM.0010", text.to_owned()));
        }
        self.drafts().insert(key(project, certificate), Value::Object(draft));
        Ok(json!({"request_info": "success"}))
    }

    fn read(&self, request: &Request, options: &Options, project: &str, certificate: &str) -> Result<Value, Failure> {
        if !request.body.is_empty() {
            return Err(invalid("a read has no body"));
        }
        check_certificate(options, certificate)?;
        let draft = self.saved(project, certificate).ok_or_else(not_found)?;
        Ok(fields::read_back(&draft))
    }

    fn drafts(&self) -> MutexGuard<'_, Drafts> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

fn key(project: &str, certificate: &str) -> (String, String) {
    (project.to_owned(), certificate.to_owned())
}

enum Action {
    Save,
    Read,
}

/// Parses `/v2/{project_id}/scm/cert/{cert_id}/save` or `…/read`, without decoding.
fn route(path: &str) -> Option<(&str, &str, Action)> {
    let segments: Vec<&str> = path.split('/').collect();
    let ["", "v2", project, "scm", "cert", certificate, action] = segments[..] else {
        return None;
    };
    match action {
        "save" => Some((project, certificate, Action::Save)),
        "read" => Some((project, certificate, Action::Read)),
        _ => None,
    }
}

/// Returns the step that the script or the options set for the certificate of a request, or [`Step::Serve`].
pub(crate) fn step(request: &Request, options: &Options, script: &Script) -> Step {
    let configured = route(request.path()).and_then(|(_, certificate, _)| {
        let mut steps = options.steps.iter();
        script.take(certificate).or_else(|| steps.find(|(id, _)| id == certificate).map(|(_, step)| step.clone()))
    });
    configured.unwrap_or(Step::Serve)
}

fn is_json(request: &Request) -> bool {
    let value = request.values("content-type").next().unwrap_or_default();
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn check_certificate(options: &Options, certificate: &str) -> Result<(), Failure> {
    let listed = |list: &[String]| list.iter().any(|id| id == certificate);
    if listed(&options.unknown) {
        return Err(not_found());
    }
    if listed(&options.foreign) {
        let text = "The certificate does not belong to the tenant";
        return Err((400, "SCM.0003", text.to_owned()));
    }
    let known = certificate
        .strip_prefix("scs")
        .is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if known || listed(&options.issued) { Ok(()) } else { Err(not_found()) }
}

fn not_found() -> Failure {
    let text = "The certificate does not exist";
    (400, "SCM.0008", text.to_owned())
}

fn invalid(text: &str) -> Failure {
    (400, "SCM.0005", format!("Parameter error: {text}"))
}

/// Returns SCM's own error body, which has no request id. The id is only in the header.
fn failure((status, code, text): Failure) -> Reply {
    answer(status, &json!({"error_code": code, "error_msg": text}))
}

/// Returns an error of the vendor's API gateway, whose body includes the request id.
pub(crate) fn gateway_error(status: u16, code: &str, text: &str) -> Reply {
    let id = request_id();
    let body = json!({"error_code": code, "error_msg": text, "request_id": id});
    Reply::json(status, &body.to_string()).header("X-Request-Id", id)
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::json(status, &body.to_string()).header("X-Request-Id", request_id())
}

/// Returns 32 hex digits. Every `RandomState` has its own keys, so each id is unique.
fn request_id() -> String {
    let half = || RandomState::new().hash_one("request id");
    format!("{:016x}{:016x}", half(), half())
}

/// Adds the `Date` header of every unscripted response.
pub(crate) fn dated(reply: Reply, options: &Options) -> Reply {
    reply.header("Date", imf_fixdate((options.now)()))
}
