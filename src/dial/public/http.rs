//! Writes the CONNECT request and parses the head of the proxy's answer. Pure: no I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::dial::ExitFault;
use crate::exit::Login;
use crate::net::Target;

/// The most bytes of HTTP heads that are read for one request, including the heads of interim (1xx) answers. 16 KiB is
/// the limit of common servers. Proxies usually answer with a few hundred bytes.
pub(super) const LONGEST_HEAD: usize = 16 * 1024;

/// Error: the bytes from the proxy are not an HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

pub(super) fn connect(target: &Target, login: Option<&Login>) -> Vec<u8> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(login) = login {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", authorization(login)));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Returns the value of the header `Proxy-Authorization`.
pub fn authorization(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password.expose())))
}

/// A parser that reads the proxy's HTTP answer while it arrives in pieces.
#[derive(Debug, Default)]
pub(in crate::dial) struct Answer {
    held: Vec<u8>,
    /// The number of bytes at the start of `held` that are known to contain no end of a head.
    looked: usize,
    /// Total length in bytes of the interim answers, which were removed from `held`.
    before: usize,
    /// The head of the final answer. Empty until the head is complete.
    head: Vec<u8>,
}

impl Answer {
    /// Adds the next bytes of the answer. Once the head is complete, returns the final status and the bytes after the
    /// head.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, Garbage> {
        self.held.extend_from_slice(bytes);
        loop {
            let begins = self.held.len().min(5);
            if self.held[..begins] != b"HTTP/"[..begins] {
                return Err(Garbage);
            }
            let Some(end) = self.end() else {
                let length = self.before + self.held.len();
                return if length > LONGEST_HEAD { Err(Garbage) } else { Ok(None) };
            };
            let status = status(&self.held[..end])?;
            let rest = self.held.split_off(end);
            if status >= 200 {
                self.head = std::mem::take(&mut self.held);
                return Ok(Some((status, rest)));
            }
            (self.before, self.looked) = (self.before + end, 0);
            self.held = rest;
        }
    }

    /// Returns the head of the final answer. Empty until [`Self::take`] has returned the status.
    pub(in crate::dial) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the position in `held` where the head of the answer ends. Lines may end with `\n` alone, because some
    /// old proxies write such lines.
    fn end(&mut self) -> Option<usize> {
        let from = self.looked.saturating_sub(3);
        let tail = &self.held[from..];
        let at =
            |mark: &[u8]| tail.windows(mark.len()).position(|piece| piece == mark).map(|at| from + at + mark.len());
        self.looked = self.held.len();
        [at(b"\r\n\r\n"), at(b"\n\n")].into_iter().flatten().min().filter(|end| *end <= LONGEST_HEAD)
    }
}

/// Parses the status code from a line such as `HTTP/1.0 200 Connection established`.
fn status(head: &[u8]) -> Result<u16, Garbage> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = line.split(|byte| *byte == b' ').nth(1).ok_or(Garbage)?.trim_ascii();
    let digits = word.len() == 3 && word.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(word).ok().filter(|_| digits).and_then(|word| word.parse().ok());
    number.filter(|status| (100..600).contains(status)).ok_or(Garbage)
}

/// Maps the proxy's final status to success or a fault. The codes 500, 502, 503 and 504 report a failure behind the
/// proxy, which cannot be verified.
pub(in crate::dial) fn status_result(status: u16) -> Result<(), ExitFault> {
    match status {
        200..=299 => Ok(()),
        429 => Err(ExitFault::Overloaded),
        500 | 502..=504 => Err(ExitFault::Unclear),
        _ => Err(ExitFault::Refused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::Secret;

    fn read(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, Garbage> {
        Answer::default().take(bytes)
    }

    #[test]
    fn an_answer_ends_with_its_head() {
        for (bytes, want) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], Ok(Some((200, &b""[..])))),
            (b"HTTP/1.0 200\r\n\r\nSSH-2.0", Ok(Some((200, b"SSH-2.0")))),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n<html>", Ok(Some((407, b"<html>")))),
            (b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 OK\r\nVia: x\r\n\r\n", Ok(Some((200, b"")))),
            (b"HTTP/1.0 200 OK\nVia: x\n\n", Ok(Some((200, b"")))),
            (b"HTTP/1.1 200 OK\r\nVia: x\r\n", Ok(None)),
            (b"HT", Ok(None)),
            (b"SSH-2.0-OpenSSH\r\n", Err(Garbage)),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Err(Garbage)),
            (b"HTTP/1.1 +20 OK\r\n\r\n", Err(Garbage)),
            (b"HTTP/1.1\r\n\r\n", Err(Garbage)),
        ] {
            assert_eq!(read(bytes), want.map(|found| found.map(|(status, rest)| (status, rest.to_vec()))), "{bytes:?}");
        }
    }

    #[test]
    fn endless_heads_end() {
        let mut answer = Answer::default();
        let mut sent = answer.take(b"HTTP/1.1 200 OK\r\n").map(|_| 0).unwrap();
        while let Ok(None) = answer.take(&[b'x'; 1024]) {
            sent += 1024;
        }
        assert!((LONGEST_HEAD - 2048..LONGEST_HEAD + 2048).contains(&sent));
        let mut interim = Answer::default();
        let taken = (0..10_000).take_while(|_| interim.take(b"HTTP/1.1 102 Wait\r\n\r\n") == Ok(None)).count();
        assert!(taken < 1000, "{taken}");
    }

    #[test]
    fn a_request_names_its_target_and_its_login() {
        let target: Target = "[2001:db8::1]:443".parse().unwrap();
        let login = Login { user: "user".into(), password: Secret::new("pass") };
        let text = String::from_utf8(connect(&target, Some(&login))).unwrap();
        assert_eq!(
            text,
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
        );
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(STANDARD.encode(plain), coded);
        }
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        use ExitFault::*;
        for (status, want) in [
            (200, Ok(())),
            (204, Ok(())),
            (301, Err(Refused)),
            (403, Err(Refused)),
            (407, Err(Refused)),
            (429, Err(Overloaded)),
            (501, Err(Refused)),
            (502, Err(Unclear)),
            (504, Err(Unclear)),
        ] {
            assert_eq!(status_result(status), want, "{status}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cut in 1usize..30, junk in prop::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [&b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nrest"[..], &junk] {
                let mut answer = Answer::default();
                let mut pieces = bytes.chunks(cut);
                let found = pieces.by_ref().map(|piece| answer.take(piece)).find(|found| *found != Ok(None));
                let found = found.unwrap_or(Ok(None)).map(|found| found.map(|(status, mut rest)| {
                    pieces.for_each(|piece| rest.extend_from_slice(piece));
                    (status, rest)
                }));
                prop_assert_eq!(found, read(bytes));
            }
        }
    }
}
