//! Whatever stands at the other end of a control connection, reading it must not panic, must not allocate without
//! bound, and must not depend on how the bytes were cut.

#![no_main]

use exitgate::tor::event::Event;
use exitgate::tor::reply::{Parser, Reply, ReplyError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut replies) = (Parser::new(), Vec::new());
    for piece in pieces {
        parser.feed(piece);
        loop {
            match parser.next(LIMIT) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(why) => return (replies, Some(why)),
            }
        }
    }
    (replies, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(bytes.chunks(usize::from(cut).max(1))));
    for reply in &whole.0 {
        assert!(!reply.lines().is_empty());
        let _ = Event::read(reply);
    }
});
