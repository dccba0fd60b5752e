//! Long tool outputs, shortened once, when they are written: the history that holds them never changes.

/// A text as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elided {
    /// The whole text, or its head and tail with a marker in between.
    pub text: String,
    /// Something is left out.
    pub elided: bool,
    /// Size of the whole text in bytes.
    pub bytes: usize,
}

/// Shortens `text` to `limit` bytes of its head and tail. The marker between them says how many bytes are missing
/// and with which call of the built-in tool `read_result` they can be read.
///
/// The result is never longer than `limit` and the marker; a text that is not longer than these stays whole.
pub fn elide(text: &str, limit: usize, handle: &str) -> Elided {
    let bytes = text.len();
    let whole = || Elided { text: text.to_owned(), elided: false, bytes };
    if bytes <= limit {
        return whole();
    }
    // What a text is about stands at its head; errors and totals at its end.
    let tail_from = text.ceil_char_boundary(bytes - limit / 3);
    let head_to = text.floor_char_boundary(limit - limit / 3);
    let marker = format!(
        "\n[... {} of {bytes} bytes left out; read on with read_result {{\"handle\":{handle:?},\"offset\":{head_to}}} ...]\n",
        tail_from - head_to
    );
    if bytes <= limit + marker.len() {
        return whole();
    }
    let text = [&text[..head_to], &marker, &text[tail_from..]].concat();
    Elided { text, elided: true, bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn head_and_tail_stay() {
        let text = format!("{}{}", "h".repeat(1_000), "t".repeat(1_000));
        assert_eq!(
            elide(&text, 9, "a/1").text,
            "hhhhhh\n[... 1991 of 2000 bytes left out; read on with read_result {\"handle\":\"a/1\",\"offset\":6} ...]\nttt"
        );
        // Eliding it would not make it shorter.
        assert!(!elide(&text, 1_950, "a/1").elided);
        assert_eq!(elide(&text, 2_000, "a/1"), Elided { text, elided: false, bytes: 2_000 });
    }

    proptest! {
        #[test]
        fn nothing_is_cut_in_two_and_nothing_is_lost(text in "[a-zé€😀]{0,400}", limit in 0usize..300, handle in "[a-z/]{0,8}") {
            let Elided { text: shown, elided, bytes } = elide(&text, limit, &handle);
            prop_assert_eq!(bytes, text.len());
            if !elided {
                prop_assert_eq!(shown, text);
                return Ok(());
            }
            prop_assert!(shown.len() < text.len());
            let (head, rest) = shown.split_once("\n[... ").unwrap();
            let (marker, tail) = rest.split_once(" ...]\n").unwrap();
            prop_assert!(head.len() + tail.len() <= limit);
            // At most a character on either side is given up for the boundaries.
            prop_assert!(head.len() + tail.len() + 6 >= limit, "{} {}", head.len(), tail.len());
            let missing: usize = marker.split_once(" of ").unwrap().0.parse().unwrap();
            let from: usize = marker.rsplit_once(':').unwrap().1.trim_end_matches('}').parse().unwrap();
            let missing = &text[from..from + missing];
            prop_assert_eq!([head, missing, tail].concat(), text);
        }
    }
}
