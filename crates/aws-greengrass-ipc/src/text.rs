//! Foreign text on its way into an error: escaped, so that it can't forge a line of a log, and cut.

/// The longest that a text may become, in bytes.
const LONGEST: usize = 256;

/// The text with what can't be printed escaped, cut to a bearable length.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let before = out.len();
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
        if out.len() > LONGEST {
            out.truncate(before);
            break;
        }
    }
    out
}

/// [`clean`] for bytes that should be a text.
pub(crate) fn clean_bytes(bytes: &[u8]) -> String {
    // No byte becomes less than one; four times the length leaves room for what is escaped.
    let bytes = &bytes[..bytes.len().min(4 * LONGEST)];
    clean(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_to_one_line_and_to_its_length() {
        assert_eq!(clean("it's \"so\"\nand\u{1b}[1m"), "it's \"so\"\\nand\\u{1b}[1m");
        assert_eq!(clean(&"ü".repeat(1000)).len(), LONGEST);
        assert!(clean_bytes(&[0xff; 5000]).len() <= LONGEST);
    }
}
