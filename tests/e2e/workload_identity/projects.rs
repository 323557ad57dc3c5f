//! Several projects: equal sources share an exchange, and each project has the credentials of its own source.

use scm_emulator::{Account, Agency, Emulator, Options, Rights, ServiceOptions, Sts};
use scm_gateway::proto::SaveInfoRequest;

use super::{EXPIRY, Lab};
use crate::harness::{Gateway, sample};

const TWO: &str = "iam::fedcba9876543210fedcba9876543210:agency:two";

/// Starts STS with an agency for the projects `one` and `two`, and another agency.
async fn lab() -> Lab {
    let rights = |projects: &[&str]| Rights {
        projects: projects.iter().map(|project| (*project).to_owned()).collect(),
        ..Rights::default()
    };
    let agencies = vec![
        Agency { rights: rights(&["one", "two"]), ..Agency::default() },
        Agency { urn: TWO.to_owned(), rights: rights(&["two"]), ..Agency::default() },
    ];
    let accounts = vec![Account {
        access_key: "AKthree".into(),
        secret_key: "SKthree".into(),
        projects: vec!["three".into()],
        ..Account::sample()
    }];
    let emulator = Emulator::start(Options { accounts, ..Options::default() }).await.unwrap();
    Lab::start(emulator, "oidc", Sts { agencies, ..Sts::default() }, ServiceOptions::default()).await
}

/// Returns the keys of two projects with STS.
fn keys(lab: &Lab, agencies: [&str; 2]) -> Vec<(&'static str, String)> {
    let mut keys = lab.keys();
    keys.retain(|(name, _)| !name.ends_with("__ID") && !name.ends_with("AGENCY_URN"));
    keys.extend([
        ("SCM_GATEWAY__DEFAULT_PROJECT", "one".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__ID", "one".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__OIDC__AGENCY_URN", agencies[0].to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__ID", "two".to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__OIDC__PROVIDER_URN", scm_emulator::Provider::default().urn),
        ("SCM_GATEWAY__PROJECTS__1__OIDC__AGENCY_URN", agencies[1].to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__OIDC__TOKEN_FILE", lab.folder.path("token")),
    ]);
    keys
}

/// Makes a call and returns the access key that signed its request.
async fn access_key(lab: &Lab, gateway: &Gateway, project: &str) -> String {
    gateway.save(SaveInfoRequest { project_id: project.to_owned(), ..sample() }).await.unwrap();
    lab.emulator.journal().pop().unwrap().access_key
}

#[tokio::test]
async fn projects_with_equal_sources_share_one_exchange() {
    let lab = lab().await;
    let agency = Agency::default().urn;
    let gateway = lab.gateway(&keys(&lab, [&agency, &agency])).await;
    let one = access_key(&lab, &gateway, "one").await;
    assert_eq!(access_key(&lab, &gateway, "two").await, one);
    assert_eq!(lab.service.attempts(), 1);
    let page = gateway.admin("/metrics").await.1;
    for project in ["one", "two"] {
        let expiry = page.lines().find(|line| {
            line.starts_with(EXPIRY)
                && line.contains(&format!("scm_project_id=\"{project}\""))
                && line.contains("source=\"oidc\"")
        });
        assert!(expiry.is_some(), "{project} in {page}");
    }
}

#[tokio::test]
async fn projects_with_other_agencies_have_other_credentials() {
    let lab = lab().await;
    let mut keys = keys(&lab, [&Agency::default().urn, TWO]);
    keys.extend([
        ("SCM_GATEWAY__PROJECTS__2__ID", "three".to_owned()),
        ("SCM_GATEWAY__PROJECTS__2__AK_FILE", lab.folder.file("ak", "AKthree")),
        ("SCM_GATEWAY__PROJECTS__2__SK_FILE", lab.folder.file("sk", "SKthree")),
    ]);
    let gateway = lab.gateway(&keys).await;
    let one = access_key(&lab, &gateway, "one").await;
    assert_ne!(access_key(&lab, &gateway, "two").await, one);
    assert_eq!(access_key(&lab, &gateway, "three").await, "AKthree");
    assert_eq!(lab.service.attempts(), 2);
    let agencies: Vec<_> =
        lab.service.exchanges().iter().map(|exchange| exchange.json()["agency_urn"].clone()).collect();
    assert!(agencies.contains(&Agency::default().urn.into()) && agencies.contains(&TWO.into()), "{agencies:?}");
}
