//! The endpoint of STS, which exchanges OIDC tokens for temporary credentials.

use super::Environment;
use super::endpoint::{self, Endpoint};
use super::reader::{Problem, Raw, Report, Section, settings};

/// The regions with STS: those of the vendor's SDKs. STS of any of them serves all regions.
const REGIONS: [&str; 12] = [
    "cn-north-4",
    "cn-south-1",
    "cn-east-3",
    "cn-southwest-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "sa-brazil-1",
    "la-south-2",
    "af-south-1",
    "tr-west-1",
];

const KEY: &str = "sts_endpoint";
const SETTING: &str = "upstream.sts_endpoint";
const VARIABLE: &str = "HUAWEICLOUD_SDK_STS_ENDPOINT";

/// The origin of the endpoint.
pub(super) enum Sts {
    /// `upstream.sts_endpoint`; `None` if it is invalid.
    Key(Option<Endpoint>),
    /// The vendor's variable, which the key overrides. Its value matters only if a project uses STS.
    Variable(Raw),
    /// The region of the project.
    Region,
}

impl Sts {
    /// Reads the key in `[upstream]`, otherwise the vendor's variable.
    pub(super) fn read(section: &mut Section<'_>, environment: &Environment) -> Self {
        let endpoint = section.optional(KEY, endpoint::sts);
        if section.origin(KEY).is_some() {
            return Self::Key(endpoint);
        }
        let variable = environment.get(VARIABLE).filter(|text| !text.is_empty());
        variable.map_or(Self::Region, |text| Self::Variable(Raw::Variable(text.clone())))
    }

    /// Returns the endpoint for a project in a region, `None` for a project with `endpoint` in place of `region`. Reports a
    /// problem once, even if several projects have it.
    pub(super) fn endpoint(&self, region: Option<&str>, report: &mut Report) -> Option<Endpoint> {
        let problem = match self {
            Self::Key(endpoint) => return endpoint.clone(),
            Self::Variable(raw) => match endpoint::sts(raw) {
                Ok(endpoint) => return Some(endpoint),
                Err(message) => Problem::new(VARIABLE, message),
            },
            Self::Region => match region.filter(|region| REGIONS.contains(region)) {
                Some(region) => return Some(Endpoint::of_region("sts", region)),
                None => Problem::new(SETTING, missing()),
            },
        };
        if !report.problems.contains(&problem) {
            report.problems.push(problem);
        }
        None
    }

    /// Reports the variable as the origin of the endpoint, and a key that no project uses.
    pub(super) fn finish(&self, report: &mut Report, is_used: bool) {
        match self {
            Self::Key(_) if !is_used => report.warning(SETTING, "has no effect, because no project uses OIDC"),
            Self::Variable(raw) if is_used => report.setting(SETTING, &settings::shown(raw), VARIABLE),
            Self::Key(_) | Self::Variable(_) | Self::Region => {}
        }
    }
}

fn missing() -> String {
    format!(
        "is missing; OIDC needs it, because a project has `endpoint` or a region without STS. STS is in {}. It is a URL such \
         as \"https://sts.ap-southeast-1.myhuaweicloud.com\"",
        REGIONS.join(", ")
    )
}
