//! A list of public proxies in any format: no panic, no dependence on how the bytes were cut, no more proxies than the limit, no private
//! address, and no sample that could forge a line of the log.

use exitgate::config::ListFormat;
use exitgate::exit::Protocol;
use exitgate::limit::target::{Scope, scope};
use exitgate::source::list::reader::{ProxyList, Reader};

/// How many proxies of a list are kept here, at most.
const MOST: usize = 8;

fn read<'a>(format: ListFormat, pieces: impl Iterator<Item = &'a [u8]>) -> ProxyList {
    let mut reader = Reader::new(format, Protocol::Http, MOST, false);
    for piece in pieces {
        reader.feed(piece);
    }
    reader.finish()
}

/// Runs one input. Its first byte says which format it has, and how it is cut.
pub fn run(input: &[u8]) {
    let (first, bytes) = super::cut(input);
    let format = [ListFormat::Auto, ListFormat::Text, ListFormat::Csv, ListFormat::Json][first % 4];
    let read_whole = read(format, std::iter::once(bytes));
    assert_eq!(read_whole, read(format, bytes.chunks(first / 4 + 1)));
    assert!(read_whole.proxies.len() <= MOST);
    for (id, login) in &read_whole.proxies {
        assert!(scope(id.addr.ip()) == Scope::Public && id.addr.port() != 0, "{id:?}");
        if let Some(login) = login {
            assert!(!format!("{login:?}").is_empty());
        }
    }
    for (text, _) in &read_whole.samples {
        // Escaping makes at most ten bytes of each (`\u{10ffff}` of four).
        assert!(text.len() <= 800 && !text.chars().any(char::is_control), "{text:?}");
    }
}
