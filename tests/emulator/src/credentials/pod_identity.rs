//! The pod identity agent of CCE, which exchanges the token of a pod for temporary credentials.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::issuer::{Names, Rights, TimeFormat};
use super::token::Claims;
use super::{Entitled, Refusal, assumed_agency};
use crate::api::parse_json;
use crate::http::Request;
use crate::script::Reply;

/// The `aud` of the tokens.
pub(crate) const POD_AUDIENCE: &str = "service.cce.pods";
const NAMES: Names = Names {
    object: "credentials",
    access_key: "accessKeyId",
    secret_key: "secretAccessKey",
    security_token: "securityToken",
    expiration: "expiration",
};
const CLUSTER: &str = "00000000-0000-4000-8000-000000000003";
const POD: &str = "scm-gateway-0";
const ASSOCIATION: &str = "00000000-0000-4000-8000-000000000005";

/// The content of the pod identity agent.
#[derive(Debug, Clone)]
pub struct PodIdentity {
    /// The path and query of the URL that pods get.
    pub target: String,
    /// The `iss` of the cluster.
    pub issuer: String,
    /// The agencies of service accounts.
    pub associations: Vec<Association>,
    /// How long credentials are valid.
    pub validity: Duration,
}

impl Default for PodIdentity {
    fn default() -> Self {
        Self {
            target: "/v1/credentials".to_owned(),
            issuer: super::sts::SAMPLE_ISSUER.to_owned(),
            associations: vec![Association::default()],
            validity: Duration::from_secs(3600),
        }
    }
}

/// Binds a service account to an agency.
#[derive(Debug, Clone)]
pub struct Association {
    /// The namespace of the service account.
    pub namespace: String,
    /// The name of the service account.
    pub service_account: String,
    /// The URN of a trust agency, or `None` for a plain one, whose responses have no `assumedAgency` and `audience`.
    pub trust_agency: Option<String>,
    /// What the credentials can access.
    pub rights: Rights,
}

impl Default for Association {
    fn default() -> Self {
        Self {
            namespace: "scm".to_owned(),
            service_account: "scm-gateway".to_owned(),
            trust_agency: Some(super::Agency::default().urn),
            rights: Rights::default(),
        }
    }
}

impl PodIdentity {
    /// Checks a request.
    pub(crate) fn check(&self, request: &Request, now: SystemTime) -> Result<Entitled, Refusal> {
        if request.target != self.target {
            return Err(refusal(404, "unknown path", "resource not found"));
        }
        if request.method != "POST" {
            return Err(refusal(405, "the method is not POST", "method not allowed"));
        }
        let values: Vec<&[u8]> = request.values("authorization").collect();
        let [token] = values[..] else {
            return Err(refusal(401, "no Authorization, or two", "authorization failed"));
        };
        let claims = std::str::from_utf8(token).ok().and_then(Claims::decode);
        let claims = claims.ok_or_else(|| refusal(401, "Authorization is not a token", "authorization failed"))?;
        if claims.issuer != self.issuer || !claims.audience.iter().any(|audience| audience == POD_AUDIENCE) {
            return Err(refusal(401, "the token is of another issuer or audience", "authorization failed"));
        }
        if !claims.is_current(now) {
            return Err(refusal(401, "the token has expired, or is not yet valid", "authorization failed"));
        }
        let is_empty = |body: Value| body.as_object().is_some_and(serde_json::Map::is_empty);
        if !request.is_json() || !parse_json(&request.body).is_ok_and(is_empty) {
            return Err(refusal(400, "the body is not an empty JSON object", "bad request"));
        }
        let association = self.associations.iter().find(|association| {
            let Association { namespace, service_account, .. } = association;
            claims.subject == format!("system:serviceaccount:{namespace}:{service_account}")
        });
        let association =
            association.ok_or_else(|| refusal(404, "no association for the service account", "resource not found"))?;
        Ok(Entitled {
            rights: association.rights.clone(),
            validity: self.validity,
            names: &NAMES,
            format: TimeFormat::Utc(3),
            rest: rest(association),
            renew_before: None,
        })
    }
}

fn rest(association: &Association) -> Value {
    let subject = json!({"namespace": association.namespace, "serviceAccount": association.service_account});
    let mut body = json!({"podIdentityAssociationId": ASSOCIATION, "subject": subject});
    if let Some(urn) = &association.trust_agency {
        body["audience"] = POD_AUDIENCE.into();
        body["assumedAgency"] = assumed_agency(urn, &format!("cce-{CLUSTER}-{POD}-{ASSOCIATION}"));
    }
    body
}

/// Returns an error of the agent. The vendor documents none.
fn refusal(status: u16, reason: &'static str, text: &str) -> Refusal {
    let body = json!({"error_code": "CCE.XXXX", "error_msg": text});
    Refusal::new(reason, Reply::json(status, &body.to_string()))
}
