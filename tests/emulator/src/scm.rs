//! The SCM service: routes, the state of all certificates, and the vendor's error bodies.

mod application;
mod certificate;
mod certificates;
mod csrs;
mod deployment;
mod failure;
mod import;
mod life;
mod notifications;
mod orders;
mod pki;
mod seed;
mod show;
mod store;
mod tags;
mod x509;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

pub use life::Status;
pub use seed::{Product, Seed};

use crate::api::{self, Found, Input};
use crate::http::Request;
use crate::script::{Reply, Script, Step};
use crate::{Account, Options};
use csrs::Csr;
use failure::Failure;
use store::{Store, World};

/// The content of a success, or the error.
type Outcome = Result<Value, Failure>;

/// What an operation does, after its request has been checked.
type Handler = fn(&Input, &mut World<'_>) -> Outcome;

/// Returns what an operation does, or `None` for those that the emulator does not offer: the v2 twins of v3 operations,
/// and the upload of pictures.
fn handler(operation: &str) -> Option<Handler> {
    Some(match operation {
        "SaveInfo" => application::save_info,
        "ReadInfo" => application::read_info,
        "CheckCsr" => application::check_csr,
        "ApplyCertificate" => application::apply_certificate,
        "ShowDomainVerification" => application::show_domain_verification,
        "CancelCertificateRequest" => application::cancel_certificate_request,
        "SupplementDomains" => application::supplement_domains,
        "CancelPrivacyAuthorization" => application::cancel_privacy_authorization,
        "ListCertificates" => certificates::list_certificates,
        "ShowCertificate" => certificates::show_certificate,
        "ImportCertificate" => import::import_certificate,
        "ExportCertificate" => certificates::export_certificate,
        "ModifyCertificate" => certificates::modify_certificate,
        "RevokeCertificate" => certificates::revoke_certificate,
        "DeleteCertificate" => certificates::delete_certificate,
        "ListProductTypes" => orders::list_product_types,
        "ShowProduct" => orders::show_product,
        "SubscribeCertificate" => orders::subscribe_certificate,
        "UnsubscribeCertificate" => orders::unsubscribe_certificate,
        "PushCertificate" => deployment::push_certificate,
        "BatchPushCertificate" => deployment::batch_push_certificate,
        "ListPushHistory" => deployment::list_push_history,
        "DeployCertificate" => deployment::deploy_certificate,
        "ListDeployedResources" => deployment::list_deployed_resources,
        "CreateCertificateTag" => tags::create_certificate_tag,
        "BatchCreateOrDeleteTags" => tags::batch_create_or_delete_tags,
        "ListTagsByCertificate" => tags::list_tags_by_certificate,
        "ListAllTags" => tags::list_all_tags,
        "ListCertificatesByTag" => tags::list_certificates_by_tag,
        "CreateCsr" => csrs::create_csr,
        "UploadCsr" => csrs::upload_csr,
        "ListCsr" => csrs::list_csr,
        "ShowCsr" => csrs::show_csr,
        "ShowCsrPrivateKey" => csrs::show_csr_private_key,
        "UpdateCsr" => csrs::update_csr,
        "DeleteCsr" => csrs::delete_csr,
        "EnableNotification" => notifications::enable_notification,
        "DisableNotification" => notifications::disable_notification,
        _ => return None,
    })
}

/// Whether the emulator answers an operation.
pub(crate) fn offers(operation: &str) -> bool {
    handler(operation).is_some()
}

/// The state of SCM.
pub(crate) struct Scm(Mutex<Store>);

impl Scm {
    pub(crate) fn new(options: &Options) -> Self {
        let mut store = Store::default();
        let now = (options.now)();
        options.certificates.iter().for_each(|seed| store.seed(seed, now));
        Self(Mutex::new(store))
    }

    /// Returns the draft of a certificate that was saved in a project.
    pub(crate) fn saved(&self, project: &str, certificate: &str) -> Option<Value> {
        let store = self.store();
        let (of_project, draft) = store.certificates.get(certificate)?.draft.as_ref()?;
        (of_project == project).then(|| draft.clone())
    }

    pub(crate) fn status(&self, certificate: &str, options: &Options) -> Option<Status> {
        let mut store = self.store();
        let now = now(&store, options);
        let certificate = store.certificates.get_mut(certificate)?;
        certificate.settle(now, options.review_step);
        Some(certificate.status)
    }

    pub(crate) fn notices(&self, certificate: &str) -> Vec<String> {
        let store = self.store();
        let certificate = store.certificates.get(certificate);
        certificate.into_iter().flat_map(|certificate| &certificate.notices).cloned().collect()
    }

    pub(crate) fn seed(&self, seed: &Seed, options: &Options) {
        let mut store = self.store();
        let now = now(&store, options);
        store.seed(seed, now);
    }

    pub(crate) fn seed_csr(&self, id: &str, owner: &str, domain: &str, options: &Options) {
        let mut store = self.store();
        let csr = Csr::seeded(id, owner, domain, now(&store, options));
        store.csrs.insert(id.to_owned(), csr);
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.store().ahead += by;
    }

    /// Serves a request with a valid signature.
    pub(crate) fn serve(&self, request: &Request, account: &Account, options: &Options) -> Reply {
        let (operation, variables) = match api::find(request) {
            Found::Operation(operation, variables) => (operation, variables),
            Found::OtherMethods(methods) => {
                let reply = gateway_error(405, "APIG.0101", "The method is not allowed");
                return reply.header("Allow", methods.join(", "));
            }
            Found::Nothing => {
                let text = "The API does not exist or has not been published in the environment";
                return gateway_error(404, "APIG.0101", text);
            }
        };
        let project = variables.iter().find(|(name, _)| *name == "project_id");
        if project.is_some_and(|(_, project)| account.projects.iter().all(|known| known != project)) {
            return failure(&Failure::new(403, "SCM.0002", "The project id does not fit"));
        }
        let input = api::check(operation, &variables, request).map_err(|text| Failure::parameter(&text));
        let outcome = input.and_then(|input| {
            let mut store = self.store();
            let now = now(&store, options);
            let handle = handler(&operation.name).ok_or_else(Failure::state)?;
            handle(&input, &mut World { store: &mut store, account, options, now })
        });
        match outcome {
            Ok(_) if operation.empty_reply => Reply::new(operation.success()).header("X-Request-Id", request_id()),
            Ok(body) => answer(operation.success(), &body),
            Err(error) => failure(&error),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

/// Returns the time in the life of the certificates.
fn now(store: &Store, options: &Options) -> SystemTime {
    (options.now)() + store.ahead
}

/// Returns the step that the script sets for an id in the path of a request, or for its operation, or
/// [`Step::Serve`].
pub(crate) fn step(request: &Request, script: &Script) -> Step {
    let Found::Operation(operation, variables) = api::find(request) else {
        return Step::Serve;
    };
    let ids = variables.into_iter().filter(|(name, _)| *name != "project_id").map(|(_, id)| id);
    script.step_of(ids.chain([operation.name.as_str()]))
}

/// Returns SCM's own error body, which has no request id. The id is only in the header.
fn failure(failure: &Failure) -> Reply {
    answer(failure.status, &json!({"error_code": failure.code, "error_msg": failure.text}))
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
pub(crate) fn request_id() -> String {
    let half = || RandomState::new().hash_one("request id");
    format!("{:016x}{:016x}", half(), half())
}
