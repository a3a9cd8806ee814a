//! The PROXY header under any bytes: no panic, no more bytes taken than there are, and the same header however it is cut.
#![no_main]

use exitgate::gateway::proxy_protocol::{BadHeader, Header, is_header, parse};
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, usize::from(piece).max(1)));
    match whole {
        Ok(Some(header)) => assert!(header.length <= bytes.len().min(MOST) && is_header(bytes)),
        Ok(None) => assert!(bytes.len() < MOST, "it would be waited for without end"),
        Err(BadHeader) => {}
    }
});
