//! Names of runs and fingerprints of requests.
//!
//! The id of a run with an idempotency key is a function of the key, so that a repeated request meets its
//! run in the store on whichever coordinator it arrives: no second index, no second step, no lock.

use serde_json::Value;
use sha2::{Digest, Sha256};
use trireme_model::{RunId, Tenant};
use uuid::Uuid;

/// Longest idempotency key in bytes.
pub const MAX_KEY: usize = 256;

/// The id of the run that belongs to an idempotency key of a tenant: `k` and 40 hex digits (160 bits) of their hash.
/// Equal keys of two tenants are two runs.
pub fn run_of_key(tenant: &Tenant, key: &str) -> RunId {
    // the prefix keeps these hashes apart from any other use of SHA-256 on the same text; no tenant has a zero in it
    let hash = Sha256::new().chain_update(b"trireme idempotency key 2\0");
    let hash = hash.chain_update(tenant.as_str()).chain_update(b"\0").chain_update(key).finalize();
    let id = format!("k{}", hex(&hash[..20]));
    RunId::new(&id).unwrap_or_else(|_| unreachable!("hex digits are allowed in a run id"))
}

/// A new id; later ones sort after earlier ones.
pub fn fresh_run() -> RunId {
    let id = Uuid::now_v7().simple().to_string();
    RunId::new(&id).unwrap_or_else(|_| unreachable!("hex digits are allowed in a run id"))
}

/// The fingerprint of a request with an idempotency key: equal for bodies that mean the same, whatever the
/// order of their fields, their white space, or whether they are JSON or YAML.
pub fn fingerprint(mut body: Value) -> String {
    body.sort_all_objects();
    // a `Value` always serialises
    fingerprint_bytes(serde_json::to_vec(&body).unwrap_or_default().as_slice())
}

/// The fingerprint of a request without a key. Its id is new, so only the backend's own repeats of the very
/// same call are ever compared with it.
pub fn fingerprint_bytes(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The reverse of [`hex`]; `None` where that did not make the text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_run_for_ever() {
        // written down on purpose: changing it would break keys across an upgrade
        let (one, other) = (Tenant::default(), Tenant::new("acme").unwrap());
        assert_eq!(run_of_key(&one, "order-17").as_str(), "kc5b7a453af60ff9f60b579b4a476077d34cc80d5");
        assert_ne!(run_of_key(&one, "order-17"), run_of_key(&one, "order-18"));
        assert_ne!(run_of_key(&one, "order-17"), run_of_key(&other, "order-17"));
        assert_ne!(fresh_run(), fresh_run());
    }

    #[test]
    fn bodies_that_mean_the_same_share_a_fingerprint() {
        let of = |text: &str| fingerprint(serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"a": {"x": 1, "y": [2]}, "b": 3}"#), of(r#"{"b":3,"a":{"y":[2],"x":1}}"#));
        assert_ne!(of(r#"{"a": [1, 2]}"#), of(r#"{"a": [2, 1]}"#));
        assert_ne!(of(r#"{"a": 1}"#), of(r#"{"a": "1"}"#));
    }

    #[test]
    fn hex_goes_there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        for bad in ["0", "0g", "AB", "é"] {
            assert_eq!(unhex(bad), None, "{bad:?}");
        }
    }
}
