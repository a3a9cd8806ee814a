//! Bytes as hexadecimal digits.

/// Lower-case digits.
pub(crate) fn write(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of digits in either case.
pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// A relay's identity: forty digits, with `$` in front and a nickname behind or not.
pub(crate) fn fingerprint(text: &str) -> Option<[u8; 20]> {
    let text = text.strip_prefix('$').unwrap_or(text);
    read(text.split(['~', '=']).next()?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_back() {
        assert_eq!(read(&write(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!((read("0"), read("0g"), read("é")), (None, None, None));
        let id = fingerprint("$00000000000000000000000000000000000000FF~name").unwrap();
        assert_eq!((id[19], fingerprint("guard1")), (255, None));
    }
}
