//! The vendor's signature, SDK-HMAC-SHA256.

use base16ct::lower::encode_string as hex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

const ACCESS_KEY: &str = "EXAMPLEAK0000000000A";
const SECRET_KEY: &[u8] = b"EXAMPLESK/not+a=real";
const SIGNED: &str = "content-type;host;x-sdk-date";

/// Returns the `authorization` header of a POST.
pub(crate) fn authorization(path: &str, host: &str, date: &str, body: &[u8]) -> String {
    let canonical = format!(
        "POST\n{path}/\n\ncontent-type:application/json\nhost:{host}\nx-sdk-date:{date}\n\n{SIGNED}\n{}",
        hex(&Sha256::digest(body))
    );
    let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", hex(&Sha256::digest(canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET_KEY).expect("HMAC takes a key of any length");
    mac.update(to_sign.as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    format!("SDK-HMAC-SHA256 Access={ACCESS_KEY}, SignedHeaders={SIGNED}, Signature={signature}")
}
