//! Large results are kept apart from their run's hash, by their digest, and recorded by reference.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use trireme_backend::Error;
use trireme_model::{Payload, RunId, limits::INLINE_BYTES};

use super::{script, transition::Shard};

/// Begins a reference; no JSON text does.
const MARK: u8 = b'@';

/// The digest in a reference; `None` for a value.
pub(crate) fn digest_of(field: &Bytes) -> Option<&str> {
    field.strip_prefix(&[MARK]).and_then(|digest| std::str::from_utf8(digest).ok())
}

impl Shard {
    /// Keeps `result` where it is large and returns what stands for it. Repeating it changes nothing, and if we
    /// crash behind it the value goes with its run.
    pub(crate) async fn keep(&self, run: &RunId, result: Payload) -> Result<Payload, Error> {
        self.keep_for(run, result, "").await
    }

    /// As [`Shard::keep`], for a run that is about to be written whole: without one the value goes after an hour.
    pub(crate) async fn keep_ahead(&self, run: &RunId, result: Payload) -> Result<Payload, Error> {
        self.keep_for(run, result, "3600000").await
    }

    async fn keep_for(&self, run: &RunId, result: Payload, wait: &str) -> Result<Payload, Error> {
        if result.len() <= INLINE_BYTES {
            return Ok(result);
        }
        let digest: String =
            Sha256::digest(result.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let (run_key, blobs) = (self.keys.run(run.as_str()), self.keys.blobs(run.as_str()));
        // where the run is gone, `complete` says so
        let args = [digest.as_bytes(), result.as_bytes(), wait.as_bytes()];
        self.link.eval(&script::KEEP, &[&run_key, &blobs], &args).await?;
        Ok(Payload::from_json(format!("@{digest}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_json_text_reads_as_a_reference() {
        assert_eq!(digest_of(&Bytes::from_static(b"@abc")), Some("abc"));
        for json in ["\"@abc\"", "null", "{}", "[1]", "-1"] {
            assert_eq!(digest_of(&Bytes::from_static(json.as_bytes())), None);
        }
    }
}
