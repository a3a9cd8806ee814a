//! Cuts a list into its entries while it arrives: lines, rows of a table, or elements of a JSON array. Pure.
//!
//! It holds one entry at a time and the proxies that it has found, each once and no more than are wanted; an entry of
//! any length can be stepped over. Garbage is counted, and the first of it kept for the log, because a list that has
//! changed its form looks from here like one that became empty.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use super::entry::{self, Entry, Odd};
use crate::config::ListFormat;
use crate::exit::{Login, Protocol, PublicId};
use crate::limit::target::{Scope, scope};

/// The longest entry that is looked at. The longest that lists have are objects of some 300 bytes.
const LONGEST: usize = 4096;

/// Entries that could not be read, kept for the log.
const SAMPLES: usize = 3;

/// So much of such an entry is kept.
const SAMPLE: usize = 80;

/// What a list came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Its proxies, each once.
    pub proxies: HashMap<PublicId, Option<Login>>,
    /// Entries that could not be read.
    pub skipped: u32,
    /// A few of these, with the reason.
    pub samples: Vec<(String, Odd)>,
    /// Proxies that were left out because there are enough.
    pub beyond: u32,
}

/// Reads a list.
#[derive(Debug)]
pub struct Reader {
    form: Form,
    fallback: Protocol,
    most: usize,
    private: bool,
    held: Vec<u8>,
    too_long: bool,
    found: Read,
}

/// How the list is written, and where in it we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nobody knows yet.
    Unknown,
    Lines,
    Rows,
    Json(Json),
}

/// Where in a JSON document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Json {
    /// Brackets and braces open, counted from the array of entries; 0 before it.
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The array is over.
    over: bool,
}

impl Reader {
    /// A reader of a list in this format, whose entries without a scheme are of this protocol. Stops taking proxies at
    /// `most`. `private` lets them stand on addresses that are not on the public internet.
    pub fn new(format: ListFormat, fallback: Protocol, most: usize, private: bool) -> Self {
        let form = match format {
            ListFormat::Auto => Form::Unknown,
            ListFormat::Text => Form::Lines,
            ListFormat::Csv => Form::Rows,
            ListFormat::Json => Form::Json(Json::default()),
        };
        Self { form, fallback, most, private, held: Vec::new(), too_long: false, found: Read::default() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.take(byte);
        }
    }

    /// There are no more.
    pub fn finish(mut self) -> Read {
        match self.form {
            Form::Json(_) => {}
            _ => self.end_of_line(),
        }
        self.found
    }

    fn take(&mut self, byte: u8) {
        match &mut self.form {
            // A byte order mark and blanks say nothing yet.
            Form::Unknown if byte.is_ascii_whitespace() || [0xEF, 0xBB, 0xBF].contains(&byte) => {}
            Form::Unknown if byte == b'[' || byte == b'{' => {
                self.form = Form::Json(Json::default());
                self.take(byte);
            }
            // Rows are told from lines by their commas, at the end of each.
            Form::Unknown => {
                self.form = Form::Lines;
                self.take(byte);
            }
            Form::Lines | Form::Rows if byte == b'\n' => self.end_of_line(),
            Form::Lines | Form::Rows => self.hold(byte),
            Form::Json(json) => {
                let step = json.step(byte);
                match step {
                    Step::Outside => {}
                    Step::Inside => self.hold(byte),
                    Step::Last => {
                        self.hold(byte);
                        self.end_of_element();
                    }
                    Step::Between => self.end_of_element(),
                }
            }
        }
    }

    fn hold(&mut self, byte: u8) {
        if self.held.len() < LONGEST {
            self.held.push(byte);
        } else {
            self.too_long = true;
        }
    }

    fn end_of_line(&mut self) {
        let held = std::mem::take(&mut self.held);
        let text = String::from_utf8_lossy(&held);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') && !text.starts_with("//") {
            let is_row = self.form == Form::Rows || text.contains([',', ';', '\t']);
            let read = if is_row { entry::row(text, self.fallback) } else { entry::line(text, self.fallback) };
            self.note(read, &held);
        }
        self.reuse(held);
    }

    fn end_of_element(&mut self) {
        let held = std::mem::take(&mut self.held);
        if !held.trim_ascii().is_empty() {
            let read = entry::json(&held, self.fallback);
            self.note(read, &held);
        }
        self.reuse(held);
    }

    fn reuse(&mut self, mut held: Vec<u8>) {
        held.clear();
        self.held = held;
        self.too_long = false;
    }

    fn note(&mut self, read: Result<Entry, Odd>, written: &[u8]) {
        let read = if self.too_long { Err(Odd::TooLong) } else { read };
        let wanted =
            read.and_then(|entry| if is_wanted(&entry.id, self.private) { Ok(entry) } else { Err(Odd::Private) });
        let found = &mut self.found;
        match wanted {
            Ok(Entry { id, login }) if found.proxies.len() < self.most || found.proxies.contains_key(&id) => {
                let held = found.proxies.entry(id).or_default();
                *held = login.or(held.take());
            }
            Ok(_) => found.beyond += 1,
            Err(odd) => {
                found.skipped += 1;
                if found.samples.len() < SAMPLES {
                    let shown = if odd == Odd::TooLong { "…".to_owned() } else { without_login(written) };
                    found.samples.push((shown, odd));
                }
            }
        }
    }
}

/// An entry as the log may have it: a login must not get there by way of a typo elsewhere in the entry. Every form that
/// lists write logins in is cut, and what names one is not shown at all.
fn without_login(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let place = text.rsplit_once('@').map_or(&*text, |(_, place)| place);
    let lower = place.to_ascii_lowercase();
    if ["user", "pass", "login", "auth"].iter().any(|word| lower.contains(word)) {
        return "an entry with a login".to_owned();
    }
    // `host:port:user:password`, and rows whose first two cells are the proxy.
    let start = place.find("://").map_or(0, |at| at + 3);
    let rest = &place[start..];
    // An address of version 6 in brackets has colons of its own, and so has an object.
    let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(ip, _)| ip);
    let skipped = bracketed.filter(|ip| ip.parse::<Ipv6Addr>().is_ok()).map_or(0, |ip| ip.len() + 2);
    let second = rest[skipped..].match_indices(':').nth(1).map(|(at, _)| skipped + at);
    let colon = second.filter(|_| !rest.contains('{'));
    let cell = rest.match_indices([',', ';', '\t']).nth(1).map(|(at, _)| at);
    let shown = &place[..start + colon.into_iter().chain(cell).min().unwrap_or(rest.len())];
    shown.chars().take(SAMPLE).flat_map(char::escape_debug).collect()
}

/// What a byte of JSON is a part of.
enum Step {
    Outside,
    Inside,
    /// The last byte of an element.
    Last,
    /// Behind an element.
    Between,
}

impl Json {
    /// The entries are the elements of the first array that there is, however deep it lies.
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

/// A proxy in our own network would be a way into it.
fn is_wanted(id: &PublicId, private: bool) -> bool {
    private || scope(id.addr.ip()) == Scope::Public
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, format: ListFormat) -> Read {
        let mut reader = Reader::new(format, Protocol::Http, 100, true);
        reader.feed(text.as_bytes());
        reader.finish()
    }

    fn urls(read: &Read) -> Vec<String> {
        let mut urls: Vec<_> =
            read.proxies.keys().map(|id| format!("{}://{}", id.protocol.as_str(), id.addr)).collect();
        urls.sort();
        urls
    }

    const WANT: [&str; 3] = ["http://192.0.2.1:80", "socks4://192.0.2.1:80", "socks5://192.0.2.2:1080"];

    #[test]
    fn every_form_is_found_out_from_its_beginning() {
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
    fn one_proxy_is_there_once_and_garbage_is_counted_and_kept() {
        let long = "x".repeat(10_000);
        let text = format!(
            "192.0.2.1:80\nhttp://192.0.2.1:80\n<html>\n{long}\nhttp://u:secret@nowhere:80\nhttps://192.0.2.1:80\n"
        );
        let found = read(&text, ListFormat::Text);
        assert_eq!((urls(&found).len(), found.skipped), (1, 3));
        assert_eq!(found.samples[0], ("<html>".to_owned(), Odd::Port));
        assert_eq!(found.samples[1].1, Odd::TooLong);
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
    fn private_proxies_and_those_beyond_the_limit_are_left_out() {
        let mut reader = Reader::new(ListFormat::Auto, Protocol::Http, 2, false);
        reader.feed(b"127.0.0.1:80\n10.0.0.1:80\n169.254.169.254:80\n1.1.1.1:80\n8.8.8.8:80\n9.9.9.9:80\n1.1.1.1:80\n");
        let found = reader.finish();
        assert_eq!((found.proxies.len(), found.skipped, found.beyond), (2, 3, 1));
        assert!(found.samples.iter().all(|(_, odd)| *odd == Odd::Private));
    }

    proptest! {
        #[test]
        fn however_it_arrives_it_is_read_the_same(cut in 1usize..40, junk in prop::collection::vec(any::<u8>(), 0..300)) {
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
