//! The country codes of ISO 3166-1.

/// The officially assigned alpha-2 codes, sorted, without user-assigned (XK) and reserved ones (EU, UK).
const CODES: [&str; 249] = [
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA", "BB", "BD",
    "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY", "BZ", "CA",
    "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE",
    "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA",
    "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK",
    "HM", "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP",
    "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT",
    "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS",
    "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ",
    "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS",
    "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST",
    "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW",
    "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI", "VN", "VU", "WF", "WS", "YE", "YT", "ZA",
    "ZM", "ZW",
];

const RULE: &str = "must be an ISO 3166-1 alpha-2 country code, such as CN";

/// Checks a code, and converts it to upper case.
pub fn normalize(value: &mut String) -> Result<(), &'static str> {
    to_upper(value).ok_or(RULE)?.clone_into(value);
    Ok(())
}

/// Returns the code in upper case if `value` is an assigned ISO 3166-1 alpha-2 code in any case.
fn to_upper(value: &str) -> Option<&'static str> {
    // The ASCII conversion keeps other letters, so they cannot become a code.
    let upper: [u8; 2] = value.as_bytes().try_into().ok()?;
    let found =
        CODES.binary_search_by_key(&upper.map(|byte| byte.to_ascii_uppercase()).as_slice(), |code| code.as_bytes());
    found.ok().map(|index| CODES[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_two_upper_case_letters() {
        assert!(CODES.is_sorted_by(|a, b| a < b));
        for code in CODES {
            assert_eq!(code.len(), 2, "{code}");
            assert!(code.bytes().all(|byte| byte.is_ascii_uppercase()), "{code}");
        }
    }

    #[test]
    fn codes_are_accepted_in_any_case() {
        for code in CODES {
            assert_eq!(to_upper(code), Some(code));
            assert_eq!(to_upper(&code.to_ascii_lowercase()), Some(code));
        }
        assert_eq!(to_upper("cN"), Some("CN"));
        assert_eq!(to_upper("Cn"), Some("CN"));
    }

    #[test]
    fn codes_are_sent_in_upper_case() {
        let mut code = "cn".to_owned();
        assert_eq!((normalize(&mut code), code.as_str()), (Ok(()), "CN"));
        let mut other = "xx".to_owned();
        assert_eq!((normalize(&mut other), other.as_str()), (Err(RULE), "xx"));
    }

    #[test]
    fn other_values_are_rejected() {
        let rejected = [
            "", "C", "CHN", "China", "XK", "EU", "UK", "AN", "SU", "ZZ", "AA", "C1", "86", " C", "C ", " CN", "CN ",
            "CN\n", "C\0", "é", "中", "ＣＮ", "ı", "ſ", "--",
        ];
        for value in rejected {
            assert_eq!(to_upper(value), None, "{value:?}");
        }
    }
}
