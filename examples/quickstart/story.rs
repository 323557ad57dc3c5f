//! The calls of the story: a draft, two rejections, and the life of a certificate until it is issued.

use scm_emulator::{Emulator, Recorded};
use scm_gateway::{
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{
        ApplyCertificateRequest, Certificate, CertificateInfo, CheckCsrRequest, ListDeployedResourcesRequest,
        SaveInfoRequest, ShowCertificateRequest, WatchCertificateRequest,
    },
};
use tonic::{Request, Response, Status, transport::Channel};

/// The package of all services.
pub const PACKAGE: &str = "huaweicloud.scm.v1";

/// A certificate that is paid, and a certificate that is already issued.
pub const PAID: &str = "scs1481110651012";
pub const ISSUED: &str = "scs1481110651999";

/// A call and what became of it.
pub struct Step {
    pub title: &'static str,
    /// The service and the method.
    pub rpc: &'static str,
    pub call: Vec<String>,
    pub outcome: Result<Vec<String>, Status>,
    pub sent: Vec<Recorded>,
    /// The number of spans: the call, and its attempt. The polls of a watch have traces of their own.
    pub spans: usize,
    pub trace_id: String,
}

/// Makes the calls.
pub struct Story<'a> {
    pub client: CertificateServiceClient<Channel>,
    pub emulator: &'a Emulator,
    pub steps: Vec<Step>,
}

impl Story<'_> {
    /// Tells the whole story.
    pub async fn tell(&mut self) {
        let valid = SaveInfoRequest { project_id: String::new(), cert_id: PAID.to_owned(), info: Some(sample()) };
        let issued = SaveInfoRequest { cert_id: ISSUED.to_owned(), ..valid.clone() };
        let invalid = CertificateInfo {
            domain: "https://www.xzz.com/".to_owned(),
            sans: vec!["xzz.com".to_owned(), "XZZ.com".to_owned()],
            country: "China".to_owned(),
            agree_privacy_protection: false,
            ..sample()
        };
        let invalid = SaveInfoRequest { info: Some(invalid), ..valid.clone() };
        self.save("a SaveInfo that succeeds", valid).await;
        self.save("a SaveInfo that SCM rejects: the certificate is already issued", issued).await;
        self.save("a SaveInfo that the gateway rejects: nothing is sent", invalid).await;
        self.check_csr().await;
        self.apply().await;
        self.show_domain_proofs().await;
        self.watch().await;
        self.show().await;
        self.list_deployed_resources().await;
    }

    /// Makes a call with a trace of its own, and keeps what became of it. `shown` returns the lines of the reply.
    async fn step<T, R>(
        &mut self,
        (title, rpc): (&'static str, &'static str),
        call: Vec<String>,
        message: T,
        make: impl AsyncFnOnce(&mut CertificateServiceClient<Channel>, Request<T>) -> Result<Response<R>, Status>,
        shown: impl AsyncFnOnce(R) -> Vec<String>,
    ) {
        let number = self.steps.len() as u128 + 1;
        let trace_id = format!("{:032x}", 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4700_u128 + number);
        let mut request = Request::new(message);
        let traceparent = format!("00-{trace_id}-00000000000ca11e-01").parse().unwrap();
        request.metadata_mut().insert("traceparent", traceparent);
        let before = self.emulator.journal().len();
        let outcome = match make(&mut self.client, request).await {
            Ok(response) => {
                let id = response.metadata().get("x-upstream-request-id").map(|id| id.to_str().unwrap().to_owned());
                let mut lines = shown(response.into_inner()).await;
                lines.extend(id.map(|id| format!("x-upstream-request-id: {id}")));
                Ok(lines)
            }
            Err(status) => Err(status),
        };
        let sent = self.emulator.journal().split_off(before);
        let spans = if sent.is_empty() || rpc.ends_with("/WatchCertificate") { 1 } else { 2 };
        self.steps.push(Step { title, rpc, call, outcome, sent, spans, trace_id });
    }

    async fn save(&mut self, title: &'static str, message: SaveInfoRequest) {
        let info = message.info.as_ref().unwrap();
        let call = vec![
            format!("cert_id {:?}   (project_id empty: the default project)", message.cert_id),
            format!("info    domain {:?}, sans {:?}, country {:?},", info.domain, info.sans, info.country),
            format!("        agree_privacy_protection {}, …", info.agree_privacy_protection),
        ];
        let make = async |client: &mut CertificateServiceClient<_>, request| client.save_info(request).await;
        let shown =
            async |reply: scm_gateway::proto::SaveInfoResponse| vec![format!("request_info {:?}", reply.request_info)];
        self.step((title, "CertificateService/SaveInfo"), call, message, make, shown).await;
    }

    async fn check_csr(&mut self) {
        let message = CheckCsrRequest { csr: csr(), ..CheckCsrRequest::default() };
        let call = vec!["csr     \"-----BEGIN CERTIFICATE REQUEST-----\\n…\"".to_owned()];
        let make = async |client: &mut CertificateServiceClient<_>, request| client.check_csr(request).await;
        let shown = async |reply: scm_gateway::proto::CheckCsrResponse| vec![format!("domain {:?}", reply.domain)];
        self.step(("SCM names the domain of a CSR", "CertificateService/CheckCsr"), call, message, make, shown).await;
    }

    async fn apply(&mut self) {
        let sample = sample();
        let message = ApplyCertificateRequest {
            cert_id: PAID.to_owned(),
            domain: sample.domain,
            country: Some(sample.country),
            applicant_name: sample.applicant_name,
            applicant_phone: sample.applicant_phone,
            applicant_email: sample.applicant_email,
            agree_privacy_protection: true,
            domain_method: "DNS".to_owned(),
            ..ApplyCertificateRequest::default()
        };
        let call = vec![
            format!("cert_id {PAID:?}, domain {:?}, domain_method \"DNS\"", message.domain),
            "no csr: SCM generates the key, so that the certificate can be deployed".to_owned(),
        ];
        let make = async |client: &mut CertificateServiceClient<_>, request| client.apply_certificate(request).await;
        let shown = async |reply: scm_gateway::proto::ApplyCertificateResponse| {
            vec![format!("request_info {:?}", reply.request_info)]
        };
        let title = "the application is submitted; it is never sent twice";
        self.step((title, "CertificateService/ApplyCertificate"), call, message, make, shown).await;
    }

    async fn show_domain_proofs(&mut self) {
        let shown = |certificate: Certificate| {
            let proofs = certificate
                .domain_proofs
                .into_iter()
                .map(|proof| format!("publish {} {} {:?}", proof.record_name, proof.record_type, proof.record_value));
            [format!("status {:?}", certificate.status)].into_iter().chain(proofs).collect()
        };
        self.show_certificate("what to publish, so that the CA finds the domain proven", shown).await;
    }

    async fn watch(&mut self) {
        let message = WatchCertificateRequest { cert_id: PAID.to_owned(), ..WatchCertificateRequest::default() };
        let make = async |client: &mut CertificateServiceClient<_>, request| client.watch_certificate(request).await;
        let shown = async |mut stream: tonic::Streaming<scm_gateway::proto::WatchCertificateResponse>| {
            let mut lines = Vec::new();
            while let Some(response) = stream.message().await.unwrap() {
                lines.push(format!("status {:?}", response.certificate.unwrap_or_default().status));
            }
            lines
        };
        let step = ("each change, until the certificate is issued", "CertificateService/WatchCertificate");
        self.step(step, vec![format!("cert_id {PAID:?}")], message, make, shown).await;
    }

    async fn show(&mut self) {
        let shown = |certificate: Certificate| {
            vec![
                format!(
                    "status {:?}, type {:?}, brand {:?}",
                    certificate.status, certificate.r#type, certificate.brand
                ),
                format!("domain {:?}, not_before {:?}", certificate.domain, certificate.not_before),
                format!("expires: not_after {:?}", certificate.not_after),
                format!("fingerprint {:?}", certificate.fingerprint),
            ]
        };
        self.show_certificate("the certificate, and when it expires", shown).await;
    }

    async fn show_certificate(&mut self, title: &'static str, lines: impl FnOnce(Certificate) -> Vec<String>) {
        let message = ShowCertificateRequest { cert_id: PAID.to_owned(), ..ShowCertificateRequest::default() };
        let make = async |client: &mut CertificateServiceClient<_>, request| client.show_certificate(request).await;
        let shown =
            async |reply: scm_gateway::proto::ShowCertificateResponse| lines(reply.certificate.unwrap_or_default());
        let step = (title, "CertificateService/ShowCertificate");
        self.step(step, vec![format!("cert_id {PAID:?}")], message, make, shown).await;
    }

    async fn list_deployed_resources(&mut self) {
        let message = ListDeployedResourcesRequest {
            certificate_ids: vec![PAID.to_owned()],
            service_names: vec!["ALL".to_owned()],
            ..ListDeployedResourcesRequest::default()
        };
        let call = vec![format!("certificate_ids [{PAID:?}], service_names [\"ALL\"]")];
        let make =
            async |client: &mut CertificateServiceClient<_>, request| client.list_deployed_resources(request).await;
        let shown = async |reply: scm_gateway::proto::ListDeployedResourcesResponse| {
            let used = |of: scm_gateway::proto::CertificateDeployment| {
                format!("{:?} is used by {} resources", of.certificate_id, of.total_num)
            };
            let next = "PushCertificate and DeployCertificate bring it to CDN, WAF and ELB".to_owned();
            reply.results.into_iter().map(used).chain([next]).collect()
        };
        let step = ("where it can be deployed, and is not yet", "CertificateService/ListDeployedResources");
        self.step(step, call, message, make, shown).await;
    }
}

/// Returns a signing request with a new key.
fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let domain = sample().domain;
    let mut parameters = rcgen::CertificateParams::new(vec![domain.clone()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, domain);
    parameters.serialize_request(&key).unwrap().pem().unwrap()
}

/// Returns the values of the vendor's example.
fn sample() -> CertificateInfo {
    CertificateInfo {
        domain: "www.xzz.com".to_owned(),
        sans: vec!["xzz.com".to_owned()],
        company_name: "Huawei Chengdu branch".to_owned(),
        company_unit: Some("Human Resource Dept".to_owned()),
        company_province: "Sichuan".to_owned(),
        company_city: "Chengdu".to_owned(),
        country: "CN".to_owned(),
        applicant_name: "Tom".to_owned(),
        applicant_phone: "13212345678".to_owned(),
        applicant_email: "9997342346@qq.com".to_owned(),
        contact_name: Some("Jacky".to_owned()),
        contact_phone: Some("13512345678".to_owned()),
        contact_email: Some("jk@jk.ff".to_owned()),
        agree_privacy_protection: true,
        ..CertificateInfo::default()
    }
}
