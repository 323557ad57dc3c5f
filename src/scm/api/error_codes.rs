//! Maps the vendor's HTTP statuses and error codes to reasons.
//!
//! The pair of status and code takes precedence, then the code, then the status. Source: the vendor's error code pages
//! of SCM and of its API gateway, listed in `tests/errors.tsv`.

use crate::error::Reason;

/// Returns the reason of a response with this status and code, or `None` for a 200 without a known code. A 404 is about the
/// certificate if the path names one.
pub fn reason(status: u16, code: Option<&str>, names_certificate: bool) -> Option<Reason> {
    code.and_then(|code| {
        // Older installations of the API gateway use the prefix APIGW with the same numbers.
        let gateway = code.strip_prefix("APIG.").or_else(|| code.strip_prefix("APIGW."));
        match gateway {
            Some(number) => by_gateway_status_and_code(status, number).or_else(|| by_gateway_code(number)),
            None => by_scm_code(code.strip_prefix("SCM.")?),
        }
    })
    .or_else(|| match status {
        404 if !names_certificate => Some(Reason::ResourceNotFound),
        _ => by_status(status),
    })
}

/// Returns whether a code says that the API gateway did not pass the request on, whatever the status.
pub fn is_unprocessed(code: Option<&str>) -> bool {
    code.is_some_and(|code| ["APIG.0610", "APIG.0613", "APIGW.0610", "APIGW.0613"].contains(&code))
}

fn by_gateway_status_and_code(status: u16, number: &str) -> Option<Reason> {
    let is_configuration = number.starts_with("010") || number.starts_with("060") || number == "0204";
    ((400..500).contains(&status) && is_configuration && number.len() == 4).then_some(Reason::UpstreamConfiguration)
}

/// Returns the reason of a code. `0201` is missing, because the gateway uses it with seven statuses, so the status
/// decides.
fn by_gateway_code(number: &str) -> Option<Reason> {
    Some(match number {
        "0101" | "0106" | "0204" | "0602" | "0607" => Reason::UpstreamConfiguration,
        "0203" => Reason::UpstreamTimeout,
        "0301" | "0303" | "0305" | "0307" | "0311" | "1009" => Reason::UpstreamCredentials,
        "0302" | "0304" | "0306" | "0310" | "0401" | "0402" | "0404" | "0502" | "0802" => Reason::UpstreamAccount,
        "0308" | "0501" => Reason::UpstreamThrottled,
        "0610" | "0613" => Reason::UpstreamUnavailable,
        "0103" | "0104" | "0105" | "0601" | "0605" | "0606" | "0608" | "0609" | "0611" | "0612" | "0705" => {
            Reason::UpstreamError
        }
        _ => return None,
    })
}

fn by_scm_code(number: &str) -> Option<Reason> {
    Some(match number {
        "0002" | "0011" | "0202" | "0212" | "0222" | "1004" | "1009" | "1010" | "4002" => Reason::UpstreamAccount,
        "0003" => Reason::CertificateNotOwned,
        "0005" | "0006" | "0009" | "0012" | "0013" | "0014" | "0015" | "0023" | "0024" | "0028" | "0030" | "0031"
        | "0032" | "0053" | "0054" | "0059" | "0069" | "0070" | "0073" | "0079" | "0114" | "0201" | "0203" | "0211"
        | "0221" => Reason::InvalidRequest,
        "0007" | "0016" | "0037" | "0038" | "0213" | "0223" | "4001" => Reason::UpstreamError,
        "0008" | "0020" => Reason::CertificateNotFound,
        "0010" | "0074" => Reason::CertificateState,
        "0707" => Reason::ResourceNotFound,
        "1000" => Reason::UpstreamCredentials,
        _ => return None,
    })
}

fn by_status(status: u16) -> Option<Reason> {
    Some(match status {
        200 => return None,
        400 | 413 | 414 | 431 | 494 => Reason::InvalidRequest,
        401 => Reason::UpstreamCredentials,
        402 | 403 => Reason::UpstreamAccount,
        404 => Reason::CertificateNotFound,
        405 => Reason::UpstreamConfiguration,
        408 | 502 | 503 => Reason::UpstreamUnavailable,
        409 => Reason::UpstreamConflict,
        412 | 422 => Reason::CertificateState,
        429 => Reason::UpstreamThrottled,
        504 => Reason::UpstreamTimeout,
        400..600 => Reason::UpstreamError,
        _ => Reason::UpstreamMalformed,
    })
}

#[cfg(test)]
mod tests {
    use super::reason;
    use crate::error::Reason;

    #[test]
    fn pairs_precede_codes_and_codes_precede_statuses() {
        for (status, code, expected) in [
            (404, Some("APIG.0103"), Reason::UpstreamConfiguration),
            (500, Some("APIG.0103"), Reason::UpstreamError),
            (400, Some("APIG.0610"), Reason::UpstreamUnavailable),
            (500, Some("SCM.0008"), Reason::CertificateNotFound),
            (401, Some("SCM.4002"), Reason::UpstreamAccount),
            (400, Some("SCM.1009"), Reason::UpstreamAccount),
            (401, Some("APIG.1009"), Reason::UpstreamCredentials),
            (503, Some("APIG.0201"), Reason::UpstreamUnavailable),
            (404, Some("SCM.9999"), Reason::CertificateNotFound),
            (402, None, Reason::UpstreamAccount),
            (408, None, Reason::UpstreamUnavailable),
            (418, None, Reason::UpstreamError),
            (599, None, Reason::UpstreamError),
            (999, None, Reason::UpstreamMalformed),
            (304, None, Reason::UpstreamMalformed),
        ] {
            assert_eq!(reason(status, code, true), Some(expected), "{status} {code:?}");
        }
    }

    #[test]
    fn a_200_is_an_error_only_with_a_known_code() {
        assert_eq!(reason(200, None, true), None);
        assert_eq!(reason(200, Some("SCM.9999"), true), None);
        assert_eq!(reason(200, Some("SCM.0010"), true), Some(Reason::CertificateState));
    }
}
