//! The one rule for counting tokens, used for billing, pacing and cutting alike, so that a test
//! can compute the expected numbers by hand.

/// Bytes of UTF-8 text that make one token.
pub const TOKEN_BYTES: usize = 4;

/// Tokens of a text: one per [`TOKEN_BYTES`] bytes, rounded up; none for an empty text.
pub fn count_tokens(text: &str) -> u64 {
    tokens_of_bytes(text.len())
}

pub(crate) fn tokens_of_bytes(bytes: usize) -> u64 {
    bytes.div_ceil(TOKEN_BYTES) as u64
}

/// Byte position after the first `tokens` tokens of `text`, moved back to a character boundary.
pub(crate) fn offset(text: &str, tokens: u64) -> usize {
    let bytes = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES);
    text.floor_char_boundary(bytes.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_a_token_rounded_up() {
        assert_eq!([0, 1, 1, 2], ["", "a", "abcd", "abcde"].map(count_tokens));
        assert_eq!(2, count_tokens("äää"));
    }

    #[test]
    fn offsets_never_split_a_character() {
        // "ab€" is 5 bytes; 4 bytes would end inside the euro sign.
        assert_eq!(2, offset("ab€", 1));
        assert_eq!(5, offset("ab€", 2));
        assert_eq!(5, offset("ab€", u64::MAX));
    }
}
