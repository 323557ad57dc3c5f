//! Replaces keys and certificates under load, each before the old one becomes invalid.

use std::{fs, os::unix::fs::symlink, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use scm_emulator::{Account, Emulator, SAMPLE_PROJECT, Tls};
use tokio::time::{sleep, timeout};

use crate::{
    client::{Client, client},
    harness::{
        folder::Folder,
        pki::{Authority, Issued, uri},
    },
    instance::Instance,
    load::{Load, MAX_IN_FLIGHT},
};

const IDENTITY: &str = "spiffe://example.org/soak";

/// Each has its own connection.
const CLIENTS: usize = 8;

/// Every third rotation first installs a key that SCM does not accept.
const WRONG_KEY_EVERY: u32 = 3;

const MAX_WAIT: Duration = Duration::from_secs(30);

/// The metrics that count reloads, each by one per rotation.
const RELOADS: [(&str, &[&str]); 3] = [
    ("scm_gateway_credentials_reloads_total{", &["outcome=\"success\""]),
    ("scm_gateway_tls_reloads_total{", &["outcome=\"success\"", "side=\"listener\""]),
    ("scm_gateway_tls_reloads_total{", &["outcome=\"success\"", "side=\"upstream\""]),
];

/// 1 while SCM has not accepted the newest credentials.
const PENDING: &str = "scm_gateway_credentials_pending{";

/// The files of the gateway, and their keys.
const FILES: [(&str, &str); 7] = [
    ("ak", "SCM_GATEWAY__PROJECTS__0__AK_FILE"),
    ("sk", "SCM_GATEWAY__PROJECTS__0__SK_FILE"),
    ("token", "SCM_GATEWAY__PROJECTS__0__SECURITY_TOKEN_FILE"),
    ("tls.crt", "SCM_GATEWAY__SERVER__TLS__CERT_FILE"),
    ("tls.key", "SCM_GATEWAY__SERVER__TLS__KEY_FILE"),
    ("clients.crt", "SCM_GATEWAY__SERVER__TLS__CLIENT_CA_FILE"),
    ("scm.crt", "SCM_GATEWAY__UPSTREAM__CA_FILE"),
];

/// The keys and authorities of one minute.
struct Generation {
    number: u32,
    /// Issues the certificates of the listener and its clients.
    authority: Authority,
    listener: Issued,
    /// The certificate of SCM.
    scm: Tls,
}

impl Generation {
    fn new(number: u32) -> Self {
        let authority = Authority::new();
        Self { number, listener: authority.server(), authority, scm: Tls::generate() }
    }

    fn account(&self) -> Account {
        Account {
            access_key: format!("AK{}", self.number),
            secret_key: format!("SK{}", self.number),
            security_token: Some(format!("token{}", self.number)),
            projects: vec![SAMPLE_PROJECT.to_owned()],
            ..Account::sample()
        }
    }
}

/// The generations, of which each trusts its neighbors, and the folder with their files.
pub struct Rotation {
    previous: Generation,
    current: Generation,
    next: Generation,
    folder: Folder,
    swaps: u32,
}

impl Rotation {
    pub fn new() -> Self {
        let [previous, current, next] = [0, 1, 2].map(Generation::new);
        let mut rotation = Self { previous, current, next, folder: Folder::new(), swaps: 0 };
        for (name, _) in FILES {
            symlink(format!("..data/{name}"), rotation.folder.path(name)).unwrap();
        }
        rotation.swap(&rotation.account());
        rotation
    }

    pub fn account(&self) -> Account {
        self.current.account()
    }

    pub fn tls(&self) -> Tls {
        self.current.scm.clone()
    }

    /// Returns the variables of an instance.
    pub fn variables(&self) -> Vec<(String, String)> {
        let max_in_flight = MAX_IN_FLIGHT.to_string();
        let fixed = [
            ("SCM_GATEWAY__PROJECTS__0__ID", SAMPLE_PROJECT),
            ("SCM_GATEWAY__CALLERS__0__IDENTITY", IDENTITY),
            ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo,ReadInfo"),
            ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
            ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", &max_in_flight),
            ("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "20s"),
            ("SCM_GATEWAY__SERVER__LAME_DUCK", "1s"),
            ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "4s"),
            ("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "1s"),
        ];
        let files = FILES.map(|(name, variable)| (variable.to_owned(), self.folder.path(name)));
        fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(files).collect()
    }

    /// Returns clients that have a certificate of this generation, and that reject the previous one's listener.
    pub fn clients(&self, address: &str) -> Vec<Client> {
        let pem = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pem(&(self.current.authority.pem.clone() + &self.next.authority.pem)));
        let issued = self.current.authority.client(vec![uri(IDENTITY)]);
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(pem(&issued.certificate), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        (0..CLIENTS).map(|_| client(address, config.clone())).collect()
    }

    /// Replaces all keys and certificates.
    pub async fn rotate(&mut self, emulator: &Emulator, load: &Load, instances: &[Instance], address: &str) {
        let next = Generation::new(self.next.number + 1);
        let current = std::mem::replace(&mut self.next, next);
        self.previous = std::mem::replace(&mut self.current, current);
        emulator.set_accounts(&[self.previous.account(), self.current.account()]);

        let without_rejections = load.without_rejections().await;
        let is_wrong_first = self.current.number.is_multiple_of(WRONG_KEY_EVERY);
        let mut expected = Vec::new();
        for instance in instances {
            for (metric, labels) in RELOADS {
                let reloads = 1.0 + f64::from(is_wrong_first && metric.contains("credentials"));
                expected.push((instance, metric, labels, instance.metric(metric, labels).await + reloads));
            }
            expected.push((instance, PENDING, &[], 0.0));
        }
        if is_wrong_first {
            load.expect_rejections(instances.len());
            let access_key = format!("AKwrong{}", self.current.number);
            self.swap(&Account { access_key, ..self.account() });
            for instance in instances {
                until(instance, PENDING, &["state=\"rejected\""], 1.0).await;
            }
        }
        self.swap(&self.account());
        for (instance, metric, labels, value) in expected {
            until(instance, metric, labels, value).await;
        }
        drop(without_rejections);
        emulator.set_tls(self.tls());
        load.set_clients(self.clients(address));
        load.fail_a_handshake();
    }

    /// Writes the files into a new folder, and swaps the symbolic link to the folder as Kubernetes does.
    fn swap(&mut self, account: &Account) {
        self.swaps += 1;
        let folder = format!("..{}", self.swaps);
        fs::create_dir(self.folder.path(&folder)).unwrap();
        let contents = [
            account.access_key.clone(),
            account.secret_key.clone(),
            account.security_token.clone().unwrap(),
            self.current.listener.certificate.clone(),
            self.current.listener.key.clone(),
            self.previous.authority.pem.clone() + &self.current.authority.pem,
            self.previous.scm.ca_pem() + &self.current.scm.ca_pem(),
        ];
        for ((name, _), content) in FILES.iter().zip(contents) {
            self.folder.file(&format!("{folder}/{name}"), &content);
        }
        symlink(&folder, self.folder.path("..data_tmp")).unwrap();
        fs::rename(self.folder.path("..data_tmp"), self.folder.path("..data")).unwrap();
        let _ = fs::remove_dir_all(self.folder.path(&format!("..{}", self.swaps - 1)));
    }
}

/// Waits until a metric has this value.
async fn until(instance: &Instance, metric: &str, labels: &[&str], value: f64) {
    let reached = async {
        while instance.metric(metric, labels).await != value {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(MAX_WAIT, reached)
        .await
        .unwrap_or_else(|_| panic!("{metric} with {labels:?} is not {value} in {MAX_WAIT:?}"));
}
