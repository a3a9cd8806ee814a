//! The PROXY header under any bytes: no panic, no more bytes taken than there are, and the same header however it is cut.
use exitgate::gateway::proxy_protocol::{BadHeader, Header, is_header, parse};

/// The longest header that is read: version 2's sixteen bytes and what may follow them.
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

/// One input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, piece));
    match whole {
        Ok(Some(header)) => assert!(header.length <= bytes.len().min(MOST) && is_header(bytes)),
        Ok(None) => assert!(bytes.len() < MOST, "it would be waited for without end"),
        Err(BadHeader) => {}
    }
}
