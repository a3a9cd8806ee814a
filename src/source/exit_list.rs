//! The exit list of the Tor project: a scanner's list of the addresses from which the traffic of exits left.
//!
//! Onionoo also publishes such addresses, but only those of the last day and without times. This list contains the time
//! at which each address was seen, and for some exits an address that Onionoo lacks. The address that was seen last is
//! most likely the current one. All these addresses are only hints: an address that our own checks see takes
//! precedence.
//!
//! The list is parsed line by line. Invalid lines are skipped.

use std::net::IpAddr;

use super::{Garbage, Parse, Parsed, utc};
use crate::exit::{Fingerprint, Moment};

/// The longest line that is parsed, in bytes. Valid lines have at most 60 bytes.
const LONGEST: usize = 1024;

/// An address from which the traffic of an exit left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub relay: Fingerprint,
    pub ip: IpAddr,
    /// When the scanner saw the address.
    pub at: Moment,
}

/// Parses an exit list while the list arrives.
#[derive(Debug, Default)]
pub struct ExitList {
    line: Vec<u8>,
    too_long: bool,
    relay: Option<Fingerprint>,
    published: Option<Moment>,
    sightings: Vec<Sighting>,
    relays: u32,
    skipped: u32,
}

impl ExitList {
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let read =
            !std::mem::take(&mut self.too_long) && str::from_utf8(&line).is_ok_and(|line| self.read(line.trim()));
        self.skipped += u32::from(!read);
        self.line = line;
        self.line.clear();
    }

    /// Parses one line. Returns false if the line is invalid.
    fn read(&mut self, line: &str) -> bool {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ExitNode" => {
                self.relay = rest.parse().ok();
                self.relays += u32::from(self.relay.is_some());
                self.relay.is_some()
            }
            "ExitAddress" => {
                let Some((ip, time)) = rest.split_once(' ') else { return false };
                let (Some(relay), Ok(ip), Some(at)) = (self.relay, ip.parse(), utc(time)) else { return false };
                self.sightings.push(Sighting { relay, ip, at });
                self.published = self.published.max(Some(at));
                true
            }
            // `Published` and `LastStatus` describe the relay's descriptor. `@type` and `Downloaded` are the first
            // lines of the copies that CollecTor (Tor's archive) publishes.
            "" | "Published" | "LastStatus" | "@type" | "Downloaded" => true,
            _ => false,
        }
    }
}

impl Parse for ExitList {
    type Output = Vec<Sighting>;

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Garbage> {
        let mut lines = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = lines.next() {
            if self.line.len() + piece.len() <= LONGEST {
                self.line.extend_from_slice(piece);
            } else {
                self.too_long = true;
            }
            if lines.peek().is_some() {
                self.end_line();
            }
        }
        Ok(())
    }

    /// Returns an error for a list without addresses, because this format has no end mark that would show whether the
    /// list is complete.
    fn finish(mut self) -> Result<Parsed<Vec<Sighting>>, Garbage> {
        if !self.line.is_empty() || self.too_long {
            self.end_line();
        }
        if self.sightings.is_empty() {
            return Err(Garbage("it contains no exit address"));
        }
        Ok(Parsed { value: self.sightings, records: self.relays, skipped: self.skipped, published: self.published })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "@type tordnsel 1.0
Downloaded 2024-01-30 13:02:00
ExitNode FE39F07EBE7870DCE124AB30DF3ABD0700A43F75
Published 2024-01-30 00:10:50
LastStatus 2024-01-30 10:00:00
ExitAddress 185.241.208.231 2024-01-30 10:21:54
ExitAddress 185.241.208.232 2024-01-30 10:21:55
ExitNode 23B49521BDC4588C7CCF3C38E552504118326B66
Published 2024-01-30 05:44:30
LastStatus 2024-01-30 11:00:00
ExitAddress 194.26.192.64 2024-01-30 11:30:06
";

    fn parse(text: &[u8], chunk: usize) -> Result<Parsed<Vec<Sighting>>, Garbage> {
        let mut list = ExitList::default();
        text.chunks(chunk).try_for_each(|chunk| list.feed(chunk))?;
        list.finish()
    }

    #[test]
    fn a_list_is_parsed_in_any_pieces() {
        for chunk in [1, 2, 7, 40, 4096] {
            let list = parse(LIST.as_bytes(), chunk).unwrap();
            let seen: Vec<_> =
                list.value.iter().map(|s| (s.relay.to_string()[..4].to_owned(), s.ip.to_string())).collect();
            let want = [("FE39", "185.241.208.231"), ("FE39", "185.241.208.232"), ("23B4", "194.26.192.64")];
            assert_eq!(seen, want.map(|(relay, ip)| (relay.to_owned(), ip.to_owned())));
            assert_eq!((list.records, list.skipped, list.published), (2, 0, utc("2024-01-30 11:30:06")));
        }
    }

    #[test]
    fn an_invalid_line_is_skipped() {
        let long = format!("{LIST}{}\n", "x".repeat(1 << 20));
        let orphan = format!("ExitAddress 192.0.2.1 2024-01-30 10:21:54\n{LIST}");
        let no_relay = LIST.replace("ExitNode 23B4", "ExitNode 23G4");
        for (text, addresses, skipped) in [
            (long.as_str(), 3, 1),
            (&orphan, 3, 1),
            (&no_relay, 2, 2),
            (&LIST.replace("194.26.192.64", "194.26.192"), 2, 1),
            (&LIST.replace("11:30:06", "25:30:06"), 2, 1),
            (&LIST.replace('\n', "\r\n"), 3, 0),
            (LIST.trim_end(), 3, 0),
        ] {
            let list = parse(text.as_bytes(), 4096).unwrap();
            assert_eq!((list.value.len(), list.skipped), (addresses, skipped), "{text:.80}");
        }
        for none in ["", "<html>maintenance</html>", "\n\n", "ExitNode 23B49521BDC4588C7CCF3C38E552504118326B66\n"] {
            assert!(parse(none.as_bytes(), 4096).is_err(), "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_the_same_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..600), chunk in 1usize..64) {
            let whole = parse(&bytes, 4096);
            prop_assert_eq!(whole, parse(&bytes, chunk));
        }
    }
}
