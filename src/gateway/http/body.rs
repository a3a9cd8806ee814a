//! Finds the end of a message's body, so the bytes of the body can be forwarded exactly as they came.
//!
//! A [`Body`] gets the bytes that follow a head and returns how many of these bytes belong to the message. It decodes
//! nothing: chunk sizes and chunk extensions are forwarded unchanged and are not copied. It accepts only what every
//! parser reads in the same way: a chunk size consists of hexadecimal digits without sign or prefix, every line ends in
//! CRLF, and the length of extensions and trailers is limited.
//!
//! Trailers are rare, and only they are held until they are complete. A program that merges trailers into the fields of
//! the head would believe a forged `X-Exitgate-…` field in the trailers. It could also use a length or a host from the
//! trailers. Trailers with such names are dropped (RFC 9110, section 6.5.1, allows that).
//!
//! Next: [`super::forward`] sends the bytes; [`super::framing`] chooses the kind of body.

use super::head::is_token;

/// The maximum length, in bytes, of the extensions of one chunk. Hardly any program uses chunk extensions. Not tuned.
const EXTENSION_MAX: u32 = 1024;

/// The maximum length, in bytes, of all trailers together. This is far more than gRPC-Web and digests use. Not tuned.
const TRAILERS_MAX: u32 = 8 * 1024;

/// Where the body of a message ends, and how much of the body has not arrived yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The body has this many bytes that have not arrived yet. Zero means that the body has ended.
    Length(u64),
    /// The body has `Transfer-Encoding: chunked`.
    Chunked(Chunks),
    /// The body consists of all bytes until the connection ends.
    UntilClose,
}

/// The part of a body that can be forwarded now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Forward the first bytes unchanged. The field is the number of these bytes.
    Whole(usize),
    /// Forward `text` in place of the first `taken` bytes. `text` holds the trailers that may be forwarded.
    Trailers { taken: usize, text: Vec<u8> },
    /// Forward nothing now, because the trailers are incomplete. More bytes must be read first.
    More,
}

/// The error for a chunk that is malformed or that two parsers could read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed chunk")]
pub struct BadChunk;

impl Body {
    /// A message without a body.
    pub const NONE: Self = Self::Length(0);

    /// Returns which part of `bytes` can be forwarded now. `bytes` must begin at the first byte of the body that has
    /// not been forwarded yet.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<Piece, BadChunk> {
        let taken = match self {
            Self::Chunked(chunks) => chunks.run(bytes, true)?,
            _ => self.take(bytes)?,
        };
        if taken > 0 {
            return Ok(Piece::Whole(taken));
        }
        let Self::Chunked(chunks) = self else { return Ok(Piece::More) };
        let mut ahead = *chunks;
        let taken = ahead.run(bytes, false)?;
        if ahead.state != State::End {
            return Ok(Piece::More);
        }
        *chunks = ahead;
        Ok(Piece::Trailers { taken, text: allowed_trailers(&bytes[..taken]) })
    }

    /// Copies to `out` all body bytes that can be forwarded now. Returns how many bytes at the beginning of `bytes`
    /// were used.
    pub fn copy(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, BadChunk> {
        let mut at = 0;
        while !self.is_over() {
            match self.piece(&bytes[at..])? {
                Piece::Whole(taken) => {
                    out.extend_from_slice(&bytes[at..at + taken]);
                    at += taken;
                }
                Piece::Trailers { taken, text } => {
                    out.extend_from_slice(&text);
                    at += taken;
                }
                Piece::More => break,
            }
        }
        Ok(at)
    }

    /// Returns how many bytes at the beginning of `bytes` belong to this body.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.run(bytes, false),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Returns true if the whole body has been read. For a body of the kind `UntilClose` the result is always false,
    /// because such a body ends only with the connection.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks { state: State::End, .. }))
    }

    /// Returns true if the body is complete when the connection ends now.
    pub fn may_end_here(&self) -> bool {
        self.is_over() || *self == Self::UntilClose
    }
}

/// The state of the parser within a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    size: u64,
    spent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    FirstDigit,
    Digits,
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::FirstDigit, size: 0, spent: 0 }
    }
}

impl Chunks {
    /// Returns how many bytes at the beginning of `bytes` belong to the chunked body. If `stop_at_trailers` is true,
    /// the parser stops before the first trailer.
    fn run(&mut self, bytes: &[u8], stop_at_trailers: bool) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if stop_at_trailers && self.state == State::TrailerStart && bytes[at] != b'\r' {
                break;
            }
            if self.state == State::Data {
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= taken as u64;
                at += taken;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.next(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<State, BadChunk> {
        use State::*;
        let next = match (self.state, byte) {
            (FirstDigit | Digits, digit) if digit.is_ascii_hexdigit() => self.digit(digit)?,
            (Digits | Blank | Extension, b'\r') => SizeLf,
            (Digits | Blank, b' ' | b'\t') => self.spend(EXTENSION_MAX, Blank)?,
            (Digits | Blank, b';') => self.spend(EXTENSION_MAX, Extension)?,
            (Extension, byte) if is_text(byte) => self.spend(EXTENSION_MAX, Extension)?,
            (SizeLf, b'\n') if self.size == 0 => self.begin(TrailerStart),
            (SizeLf, b'\n') => self.begin(Data),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => self.begin(FirstDigit),
            (TrailerStart, b'\r') => LastLf,
            (TrailerStart | TrailerName, byte) if is_token(byte) => self.spend(TRAILERS_MAX, TrailerName)?,
            (TrailerName, b':') => self.spend(TRAILERS_MAX, TrailerValue)?,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, byte) if is_text(byte) => self.spend(TRAILERS_MAX, TrailerValue)?,
            (TrailerLf, b'\n') => self.spend(TRAILERS_MAX, TrailerStart)?,
            (LastLf, b'\n') => End,
            _ => return Err(BadChunk),
        };
        Ok(next)
    }

    /// Adds one hexadecimal digit to the chunk size. At most 16 digits are accepted, so the chunk size fits in 64 bits
    /// here and in other parsers.
    fn digit(&mut self, digit: u8) -> Result<State, BadChunk> {
        let value = (digit as char).to_digit(16).ok_or(BadChunk)?;
        self.size = self.size << 4 | u64::from(value);
        self.spend(16, State::Digits)
    }

    fn begin(&mut self, state: State) -> State {
        self.spent = 0;
        state
    }

    fn spend(&mut self, most: u32, state: State) -> Result<State, BadChunk> {
        // The digits of the chunk size count towards the limit on the length of extensions. This does not matter,
        // because there are at most 16 digits.
        self.spent += 1;
        if self.spent > most { Err(BadChunk) } else { Ok(state) }
    }
}

/// Removes forbidden trailers. Forbidden are fields that only the gateway may set, fields that are allowed only in a
/// head, and fields that concern one hop. `trailers` includes the empty line at the end.
fn allowed_trailers(trailers: &[u8]) -> Vec<u8> {
    const FORBIDDEN_PREFIXES: [&str; 2] = ["x-exitgate", "proxy-"];
    const FORBIDDEN: [&str; 9] = [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ];
    let is_forbidden = |line: &[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        FORBIDDEN.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
            || FORBIDDEN_PREFIXES
                .iter()
                .any(|begin| name.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin.as_bytes())))
    };
    trailers.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_forbidden(line)).flatten().copied().collect()
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives `bytes` to the body in pieces of `piece` bytes. Returns how many bytes belong to the body, and whether the
    /// body is over.
    fn take(mut body: Body, bytes: &[u8], piece: usize) -> Result<(usize, bool), BadChunk> {
        let mut at = 0;
        while at < bytes.len() && !body.is_over() {
            let end = (at + piece).min(bytes.len());
            at += body.take(&bytes[at..end])?;
        }
        Ok((at, body.is_over()))
    }

    fn chunked() -> Body {
        Body::Chunked(Chunks::default())
    }

    #[test]
    fn a_length_is_that_many_bytes() {
        assert_eq!(take(Body::Length(5), b"hello, you", 3), Ok((5, true)));
        assert_eq!(take(Body::Length(5), b"hell", 9), Ok((4, false)));
        assert_eq!(take(Body::NONE, b"next", 9), Ok((0, true)));
        assert_eq!(take(Body::UntilClose, b"all of it", 2), Ok((9, false)));
        assert!(Body::UntilClose.may_end_here() && !Body::Length(1).may_end_here() && !chunked().may_end_here());
    }

    /// Returns what is forwarded of a body that comes in pieces of `piece` bytes.
    fn passed(bytes: &[u8], piece: usize) -> Result<String, BadChunk> {
        let (mut body, mut out, mut held) = (chunked(), Vec::new(), Vec::new());
        for more in bytes.chunks(piece) {
            held.extend_from_slice(more);
            let taken = body.copy(&held, &mut out)?;
            held.drain(..taken);
        }
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn forbidden_trailers_are_dropped() {
        for (body, want) in [
            ("1\r\nx\r\n0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n"),
            ("0\r\nDigest: x\r\nETag: y\r\n\r\n", "0\r\nDigest: x\r\nETag: y\r\n\r\n"),
            (
                "2\r\nhi\r\n0\r\nA: b\r\nx-EXITGATE-Exit-Ip: 6.6.6.6\r\nC: d\r\n\r\n",
                "2\r\nhi\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            ),
            ("0\r\nX-Exitgate: 1\r\nX-Exitgate-Moved: a\r\n\r\n", "0\r\n\r\n"),
            // These trailers frame a message, route a message, or concern only one hop.
            ("0\r\nContent-Length: 5\r\nA: b\r\nhost: evil\r\n\r\n", "0\r\nA: b\r\n\r\n"),
            ("0\r\nTransfer-Encoding: x\r\nProxy-Authorization: Basic eA==\r\nTE: x\r\n\r\n", "0\r\n\r\n"),
            ("0\r\nTest: 1\r\nHosts: 2\r\n\r\n", "0\r\nTest: 1\r\nHosts: 2\r\n\r\n"),
            // The data of this chunk looks like trailers.
            ("15\r\n0\r\nX-Exitgate-Exit: 1\r\n0\r\n\r\n", "15\r\n0\r\nX-Exitgate-Exit: 1\r\n0\r\n\r\n"),
        ] {
            for piece in [1, 2, 7, 1000] {
                assert_eq!(passed(body.as_bytes(), piece).as_deref(), Ok(want), "{body:?} by {piece}");
            }
        }
        let long = format!("0\r\nX-Exitgate-A: {}\r\n\r\n", "x".repeat(9000));
        for piece in [1, 1000, 10_000] {
            assert_eq!(passed(long.as_bytes(), piece), Err(BadChunk), "what is held is bounded");
        }
    }

    #[test]
    fn chunks_end_where_they_say() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n00\r\n\r\n",
            "5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n",
            "5 ;a=b\r\nhello\r\n0  \r\n\r\n",
            "1\r\n\n\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n",
            "0000000000000001\r\nx\r\n0\r\n\r\n",
        ] {
            let bytes = [body.as_bytes(), b"GET / HTTP/1.1"].concat();
            for piece in [1, 2, 7, 100] {
                assert_eq!(take(chunked(), &bytes, piece), Ok((body.len(), true)), "{body:?}");
            }
            assert_eq!(
                take(chunked(), &body.as_bytes()[..body.len() - 1], 100),
                Ok((body.len() - 1, false)),
                "{body:?}"
            );
        }
    }

    #[test]
    fn a_chunk_that_can_be_read_in_two_ways_is_refused() {
        let long_extension = format!("1;{}\r\n", "x".repeat(2000));
        let long_trailer = format!("0\r\nA: {}\r\n\r\n", "x".repeat(9000));
        for body in [
            "\r\n",
            " 5\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\nhello",
            "5\r\r\n",
            "5 5\r\n",
            "5;a\nb\r\n",
            "5;\0\r\n",
            "5,\r\n",
            "G\r\n",
            "00000000000000001\r\n",
            "fffffffffffffffff\r\n",
            "1\r\nxx\r\n",
            "1\r\nx\n",
            "1\r\nx0\r\n\r\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\n folded: x\r\n",
            "0\r\nno colon\r\n",
            "0\r\n: x\r\n",
            "0\r\nA : b\r\n",
            "0\r\nA: \0\r\n",
            &long_extension,
            &long_trailer,
        ] {
            for piece in [1, 1000, 10_000] {
                assert_eq!(take(chunked(), body.as_bytes(), piece), Err(BadChunk), "{body:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_encoded_body_is_found_complete(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6), piece in 1usize..200) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            let length = bytes.len();
            bytes.extend(b"0\r\n\r\n");
            prop_assert_eq!(take(chunked(), &bytes, piece), Ok((length, true)));
        }

        #[test]
        fn pieces_do_not_matter(bytes in "[0-9a-f;: A\r\n]{0,60}", piece in 1usize..20) {
            prop_assert_eq!(take(chunked(), bytes.as_bytes(), piece), take(chunked(), bytes.as_bytes(), 1000));
        }
    }
}
