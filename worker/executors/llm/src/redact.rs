//! Keeps keys and prompts out of what an operator reads.
//!
//! Providers echo requests in their errors (validation errors of FastAPI servers quote the whole
//! input). An excerpt is cut to [`MAX_EXCERPT`] and every stretch of it that also stands in the
//! request is replaced.

use std::collections::HashMap;

/// Most bytes of a provider's words that an error carries.
pub(crate) const MAX_EXCERPT: usize = 2 << 10;

const MARK: &str = "[redacted]";

/// Echoes are found by blocks of this size, so a shared stretch of twice as many bytes (less one)
/// is always found and ordinary words in common are not.
const BLOCK: usize = 12;

/// Places of one block that are looked at: a run of equal bytes is found from its first place, and
/// looking at each would cost minutes on a hostile answer to a long prompt.
const MAX_REPEATS: usize = 8;

/// `text` bounded, without control characters, without `secrets`, without stretches of `prompts`.
pub(crate) fn excerpt<'a>(
    text: &str,
    secrets: impl Iterator<Item = &'a str>,
    prompts: impl Iterator<Item = &'a str>,
) -> String {
    // Marks are shorter or longer than what they replace, so bound generously first.
    let mut out = bounded(text, 2 * MAX_EXCERPT).to_owned();
    for secret in secrets.filter(|secret| secret.len() >= 4) {
        out = out.replace(secret, MARK);
    }
    for prompt in prompts {
        out = without_echo(&out, prompt);
    }
    let out: String = out.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    bounded(out.trim(), MAX_EXCERPT).to_owned()
}

fn bounded(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn without_echo(text: &str, prompt: &str) -> String {
    if prompt.len() < 2 * BLOCK {
        // Short prompts: whole or not at all, and not when they are ordinary words.
        return if prompt.trim().len() >= 8 { text.replace(prompt.trim(), MARK) } else { text.to_owned() };
    }
    let (bytes, prompt) = (text.as_bytes(), prompt.as_bytes());
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, block) in bytes.windows(BLOCK).enumerate() {
        let places = places.entry(block).or_default();
        if places.len() < MAX_REPEATS {
            places.push(at);
        }
    }
    let mut hidden = vec![false; bytes.len()];
    for (nth, block) in prompt.chunks_exact(BLOCK).enumerate() {
        for &at in places.get(block).into_iter().flatten() {
            if hidden[at] && hidden[at + BLOCK - 1] {
                continue;
            }
            let here = nth * BLOCK;
            let before = (1..=at.min(here)).take_while(|&i| bytes[at - i] == prompt[here - i]).count();
            let after = (BLOCK..(bytes.len() - at).min(prompt.len() - here))
                .take_while(|&i| bytes[at + i] == prompt[here + i])
                .count();
            if before + BLOCK + after >= 2 * BLOCK - 1 {
                hidden[at - before..at + BLOCK + after].fill(true);
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut hiding = false;
    for (at, c) in text.char_indices() {
        let hide = hidden[at..at + c.len_utf8()].iter().any(|&h| h);
        if hide && !hiding {
            out.push_str(MARK);
        } else if !hide {
            out.push(c);
        }
        hiding = hide;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_echoes_are_removed() {
        let prompt = "Summarise the confidential merger plan of Acme and Globex, é included.";
        let said = format!("invalid input: '{}' with key sk-12345\n", &prompt[10..61]);
        let out = excerpt(&said, ["sk-12345"].into_iter(), [prompt].into_iter());
        assert_eq!(out, "invalid input: '[redacted]' with key [redacted]");
        // Shared words are not an echo.
        let out = excerpt("the confidential field is missing", [].into_iter(), [prompt].into_iter());
        assert_eq!(out, "the confidential field is missing");
    }

    #[test]
    fn bounded_whatever_comes() {
        let long = "é".repeat(10_000);
        let out = excerpt(&long, [].into_iter(), [].into_iter());
        assert!(out.len() <= MAX_EXCERPT && out.len() > MAX_EXCERPT - 4);
        let prompt = "x".repeat(5_000);
        let out = excerpt(&prompt, [].into_iter(), [prompt.as_str()].into_iter());
        assert_eq!(out, MARK);
    }
}
