//! Any bytes on a control connection: the reader must not panic, must not allocate without bound, and its result must not depend on
//! how the bytes were cut.

use exitgate::tor::event::Event;
use exitgate::tor::reply::{Parser, Reply, ReplyError};

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

/// Runs one input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(bytes.chunks(piece)));
    for reply in &whole.0 {
        assert!(!reply.lines().is_empty());
        let _ = Event::read(reply);
    }
}
