//! Splits a list of public proxies into its entries while the list arrives. Entries are lines, rows of a table, or
//! elements of a JSON array. Pure.
//!
//! The reader keeps one entry at a time, and the proxies found so far: each proxy once, up to a limit. A too long entry
//! is skipped and is not kept. Invalid entries are counted, and the first few are kept for the log. Without them, a
//! list whose format has changed would look like an empty list.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use super::entry::{self, BadEntry, Entry};
use crate::config::ListFormat;
use crate::exit::{Login, Protocol, PublicId};
use crate::limit::target::{Scope, scope};

/// The longest entry that is parsed, in bytes. The longest entries in known lists are objects of about 300 bytes.
const LONGEST: usize = 4096;

/// How many invalid entries of a list are kept for the log.
const SAMPLES: usize = 3;

/// How many characters of each invalid entry are kept for the log.
const SAMPLE: usize = 80;

/// A list after parsing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProxyList {
    /// The proxies of the list, each proxy once, with its login if the list has one.
    pub proxies: HashMap<PublicId, Option<Login>>,
    /// How many entries cannot be used.
    pub skipped: u32,
    /// The first few entries that cannot be used, each with the reason.
    pub samples: Vec<(String, BadEntry)>,
    /// How many proxies were left out because the list exceeds the limit.
    pub beyond: u32,
}

/// Reads one list.
#[derive(Debug)]
pub struct Reader {
    form: Form,
    fallback: Protocol,
    most: usize,
    private: bool,
    /// The bytes of the current entry so far.
    entry: Vec<u8>,
    too_long: bool,
    found: ProxyList,
}

/// The format of the list, and the current position in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The format is not known before the first character was read.
    Unknown,
    Lines,
    Rows,
    Json(Json),
}

/// The current position in a JSON document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Json {
    /// How many brackets and braces are open, including the bracket of the array of entries. 0 before that array
    /// begins.
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// True after the end of the array of entries.
    over: bool,
}

impl Reader {
    /// Returns a reader for a list in this format. `fallback` is the protocol of entries without a URL scheme, `most`
    /// is the largest number of proxies, and `private` is true if private addresses are allowed.
    pub fn new(format: ListFormat, fallback: Protocol, most: usize, private: bool) -> Self {
        let form = match format {
            ListFormat::Auto => Form::Unknown,
            ListFormat::Text => Form::Lines,
            ListFormat::Csv => Form::Rows,
            ListFormat::Json => Form::Json(Json::default()),
        };
        Self { form, fallback, most, private, entry: Vec::new(), too_long: false, found: ProxyList::default() }
    }

    /// Reads the next bytes of the list.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.take(byte);
        }
    }

    /// Ends the reading after the last byte of the list, and returns the proxies.
    pub fn finish(mut self) -> ProxyList {
        match self.form {
            Form::Json(_) => {}
            _ => self.end_of_line(),
        }
        self.found
    }

    fn take(&mut self, byte: u8) {
        match &mut self.form {
            // A byte order mark or white space says nothing about the format.
            Form::Unknown if byte.is_ascii_whitespace() || [0xEF, 0xBB, 0xBF].contains(&byte) => {}
            Form::Unknown if byte == b'[' || byte == b'{' => {
                self.form = Form::Json(Json::default());
                self.take(byte);
            }
            // At the end of each line, its separators (commas, semicolons, tabs) decide whether the line is a row of a
            // table.
            Form::Unknown => {
                self.form = Form::Lines;
                self.take(byte);
            }
            Form::Lines | Form::Rows if byte == b'\n' => self.end_of_line(),
            Form::Lines | Form::Rows => self.keep(byte),
            Form::Json(json) => {
                let step = json.step(byte);
                match step {
                    Step::Outside => {}
                    Step::Inside => self.keep(byte),
                    Step::Last => {
                        self.keep(byte);
                        self.end_of_element();
                    }
                    Step::Between => self.end_of_element(),
                }
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.entry.len() < LONGEST {
            self.entry.push(byte);
        } else {
            self.too_long = true;
        }
    }

    fn end_of_line(&mut self) {
        let bytes = std::mem::take(&mut self.entry);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') && !text.starts_with("//") {
            let is_row = self.form == Form::Rows || text.contains([',', ';', '\t']);
            let read = if is_row { entry::row(text, self.fallback) } else { entry::line(text, self.fallback) };
            self.note(read, &bytes);
        }
        self.reuse(bytes);
    }

    fn end_of_element(&mut self) {
        let bytes = std::mem::take(&mut self.entry);
        if !bytes.trim_ascii().is_empty() {
            let read = entry::json(&bytes, self.fallback);
            self.note(read, &bytes);
        }
        self.reuse(bytes);
    }

    fn reuse(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.entry = bytes;
        self.too_long = false;
    }

    fn note(&mut self, read: Result<Entry, BadEntry>, written: &[u8]) {
        let read = if self.too_long { Err(BadEntry::TooLong) } else { read };
        let allowed =
            read.and_then(|entry| if is_allowed(&entry.id, self.private) { Ok(entry) } else { Err(BadEntry::Private) });
        let found = &mut self.found;
        match allowed {
            Ok(Entry { id, login }) if found.proxies.len() < self.most || found.proxies.contains_key(&id) => {
                let known = found.proxies.entry(id).or_default();
                *known = login.or(known.take());
            }
            Ok(_) => found.beyond += 1,
            Err(bad) => {
                found.skipped += 1;
                if found.samples.len() < SAMPLES {
                    let shown = if bad == BadEntry::TooLong { "…".to_owned() } else { without_login(written) };
                    found.samples.push((shown, bad));
                }
            }
        }
    }
}

/// Returns an invalid entry for the log, without its login. All known forms of logins are removed. An entry that
/// contains a word such as `password` is not shown at all.
fn without_login(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let place = text.rsplit_once('@').map_or(&*text, |(_, place)| place);
    let lower = place.to_ascii_lowercase();
    if ["user", "pass", "login", "auth"].iter().any(|word| lower.contains(word)) {
        return "an entry with a login".to_owned();
    }
    // A login may stand after the port: in the form `host:port:user:password`, and in rows whose first two cells are
    // the host and port of the proxy.
    let start = place.find("://").map_or(0, |at| at + 3);
    let rest = &place[start..];
    // Colons also occur in an IPv6 address in brackets, and in a JSON object.
    let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(ip, _)| ip);
    let skipped = bracketed.filter(|ip| ip.parse::<Ipv6Addr>().is_ok()).map_or(0, |ip| ip.len() + 2);
    let second = rest[skipped..].match_indices(':').nth(1).map(|(at, _)| skipped + at);
    let colon = second.filter(|_| !rest.contains('{'));
    let cell = rest.match_indices([',', ';', '\t']).nth(1).map(|(at, _)| at);
    let shown = &place[..start + colon.into_iter().chain(cell).min().unwrap_or(rest.len())];
    shown.chars().take(SAMPLE).flat_map(char::escape_debug).collect()
}

/// To which part of the JSON document a byte belongs.
enum Step {
    Outside,
    /// The byte is inside an element of the array.
    Inside,
    /// The byte is the last one of an element.
    Last,
    /// The byte is between two elements.
    Between,
}

impl Json {
    /// Reads one byte. The entries are the elements of the first array in the document, at any depth of nesting.
    fn step(&mut self, byte: u8) -> Step {
        if self.over {
            return Step::Outside;
        }
        let inside = self.depth > 0;
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return if inside { Step::Inside } else { Step::Outside };
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' if !inside => {
                self.depth = 1;
                return Step::Outside;
            }
            b'[' | b'{' if inside => self.depth = self.depth.saturating_add(1),
            b']' | b'}' if self.depth == 1 => {
                self.over = true;
                return Step::Between;
            }
            b']' | b'}' if inside => {
                self.depth -= 1;
                return if self.depth == 1 { Step::Last } else { Step::Inside };
            }
            b',' if self.depth == 1 => return Step::Between,
            _ => {}
        }
        if inside { Step::Inside } else { Step::Outside }
    }
}

/// Returns true if a proxy may be used. A proxy with a private address would give clients a way into that private
/// network.
fn is_allowed(id: &PublicId, private: bool) -> bool {
    private || scope(id.addr.ip()) == Scope::Public
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, format: ListFormat) -> ProxyList {
        let mut reader = Reader::new(format, Protocol::Http, 100, true);
        reader.feed(text.as_bytes());
        reader.finish()
    }

    fn urls(list: &ProxyList) -> Vec<String> {
        let mut urls: Vec<_> =
            list.proxies.keys().map(|id| format!("{}://{}", id.protocol.as_str(), id.addr)).collect();
        urls.sort();
        urls
    }

    const WANT: [&str; 3] = ["http://192.0.2.1:80", "socks4://192.0.2.1:80", "socks5://192.0.2.2:1080"];

    #[test]
    fn the_format_is_recognized_by_its_beginning() {
        for text in [
            "192.0.2.1:80\r\nsocks4://192.0.2.1:80\n\n# more\n// and\nsocks5://192.0.2.2:1080",
            "http://192.0.2.1:80,ZZ,Unknown\nsocks4://192.0.2.1:80,US,\nsocks5://192.0.2.2:1080,DE,x\n",
            "\u{feff}[ \"192.0.2.1:80\",\n\"socks4://192.0.2.1:80\" , \"socks5://192.0.2.2:1080\"]",
            r#"{"total":3,"data":[{"proxy":"http://192.0.2.1:80","geo":{"a":["x,]}"]}},
               {"ip":"192.0.2.1","port":80,"protocol":"socks4"},{"url":"socks5://192.0.2.2:1080"}],"x":["1.2.3.4:5"]}"#,
        ] {
            let found = read(text, ListFormat::Auto);
            assert_eq!((urls(&found), found.skipped), (WANT.map(str::to_owned).to_vec(), 0), "{text}");
        }
    }

    #[test]
    fn each_proxy_is_kept_once_and_invalid_entries_are_counted() {
        let long = "x".repeat(10_000);
        let text = format!(
            "192.0.2.1:80\nhttp://192.0.2.1:80\n<html>\n{long}\nhttp://u:secret@nowhere:80\nhttps://192.0.2.1:80\n"
        );
        let found = read(&text, ListFormat::Text);
        assert_eq!((urls(&found).len(), found.skipped), (1, 3));
        assert_eq!(found.samples[0], ("<html>".to_owned(), BadEntry::Port));
        assert_eq!(found.samples[1].1, BadEntry::TooLong);
        assert!(found.samples.iter().all(|(text, _)| text.len() <= SAMPLE && !text.contains("secret")));
    }

    #[test]
    fn no_login_of_a_list_gets_into_the_log() {
        let long = "s".repeat(200);
        for entry in [
            &format!("http://u:{long}@1.2.3.4:99999") as &str,
            "1.2.3.4:99999:u:sss",
            "ftp://1.2.3.4:21:u:sss",
            "1.2.3.4,x,u,sss",
            "1.2.3.4;x;sss",
            r#"[{"ip":"1.2.3.4","port":0,"username":"u","password":"sss"}]"#,
            r#"["1.2.3.4:0:u:sss"]"#,
            r#"[1, "1.2.3.4:0:u:sss"]"#,
            "[::1]:99999:u:sss",
            &format!("{}@1.2.3.4:99999", "s".repeat(9000)),
        ] {
            for format in [ListFormat::Text, ListFormat::Auto] {
                let found = read(entry, format);
                assert!(found.skipped > 0, "{entry}");
                let all = format!("{:?}", found.samples);
                assert!(!all.contains("sss"), "{entry}: {all}");
            }
        }
        for shown in ["ftp://1.2.3.4:21 x", "[2001:db8::1]:99999"] {
            assert_eq!(read(shown, ListFormat::Text).samples[0].0, shown);
        }
    }

    #[test]
    fn private_proxies_and_proxies_beyond_the_limit_are_left_out() {
        let mut reader = Reader::new(ListFormat::Auto, Protocol::Http, 2, false);
        reader.feed(b"127.0.0.1:80\n10.0.0.1:80\n169.254.169.254:80\n1.1.1.1:80\n8.8.8.8:80\n9.9.9.9:80\n1.1.1.1:80\n");
        let found = reader.finish();
        assert_eq!((found.proxies.len(), found.skipped, found.beyond), (2, 3, 1));
        assert!(found.samples.iter().all(|(_, bad)| *bad == BadEntry::Private));
    }

    proptest! {
        #[test]
        fn a_list_is_read_the_same_in_any_pieces(cut in 1usize..40, junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = r#"[{"proxy":"http://192.0.2.1:80"},{"proxy":"socks4://192.0.2.1:80"},"socks5://192.0.2.2:1080"]"#;
            for bytes in [text.as_bytes(), &junk] {
                let mut whole = Reader::new(ListFormat::Auto, Protocol::Http, 100, true);
                whole.feed(bytes);
                let mut pieces = Reader::new(ListFormat::Auto, Protocol::Http, 100, true);
                bytes.chunks(cut).for_each(|piece| pieces.feed(piece));
                prop_assert_eq!(whole.finish(), pieces.finish());
            }
        }
    }
}
