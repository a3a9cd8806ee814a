//! The PROXY header with any bytes: no panic, no more bytes used than there are, and the same header however the bytes were cut.
use exitgate::gateway::proxy_protocol::{BadHeader, Header, is_header, parse};

/// The longest header that is read: the sixteen bytes of version 2, and what may follow them.
const MOST: usize = 16 + 1024;

fn read(bytes: &[u8], piece: usize) -> Result<Option<Header>, BadHeader> {
    let mut have = 0;
    loop {
        have = (have + piece).min(bytes.len());
        match parse(&bytes[..have]) {
            Ok(None) if have < bytes.len() => {}
            end => return end,
        }
    }
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, piece));
    match whole {
        Ok(Some(header)) => assert!(header.length <= bytes.len().min(MOST) && is_header(bytes)),
        Ok(None) => assert!(bytes.len() < MOST, "the reader would wait without end"),
        Err(BadHeader) => {}
    }
}
