//! Beginnings of a prompt, each known by a hash, for the prompt cache.

use super::Prompt;
use crate::{
    TOKEN_BYTES,
    draw::{FNV_PRIME, hash},
};

impl Prompt {
    /// Hashes of the first `step`, 2 * `step`, ... tokens in the order in which providers cache: tools, system,
    /// messages. The bytes are those that [`Prompt::tokens`] counts; the model and the bounds between parts change
    /// the hash and count nothing.
    pub(crate) fn prefixes(&self, step: u64) -> Vec<u64> {
        let step = usize::try_from(step).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES).max(1);
        let mut chain = Chain { state: hash(self.model.as_bytes()), step, filled: 0, found: Vec::new() };
        chain.part(b'o', &self.tool_text);
        chain.part(b's', &self.system);
        for message in &self.messages {
            chain.part(b'm' + message.role as u8, &message.text);
            for call in &message.calls {
                chain.part(b'c', &call.name);
                chain.part(b'a', &call.arguments);
            }
            for result in &message.results {
                chain.part(b'r', &result.text);
            }
        }
        chain.found
    }
}

/// FNV-1a that notes its state every `step` bytes.
struct Chain {
    state: u64,
    step: usize,
    /// Bytes since the last note.
    filled: usize,
    found: Vec<u64>,
}

impl Chain {
    fn part(&mut self, tag: u8, text: &str) {
        self.take(tag);
        for byte in text.bytes() {
            self.take(byte);
            self.filled += 1;
            if self.filled == self.step {
                self.filled = 0;
                self.found.push(self.state);
            }
        }
    }

    fn take(&mut self, byte: u8) {
        self.state = (self.state ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }
}
