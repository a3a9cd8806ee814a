//! Decompresses a response body, passes the body to the parser, and stops when the body is too long.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, HeaderMap};

use super::{FetchError, Sink};

/// Receives the decompressed bytes of a body. This type implements `io::Write` because a decoder writes to an
/// `io::Write`. The reason of a failure is kept in this type, because an `io::Error` cannot contain it.
struct Outlet<'a> {
    sink: Sink<'a>,
    left: u64,
    limit: u64,
    refused: Option<FetchError>,
}

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let taken = if length > self.left {
            Err(FetchError::TooLong(self.limit))
        } else {
            self.left -= length;
            (self.sink)(bytes).map_err(FetchError::from)
        };
        match taken {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.refused = Some(error);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoding<'a> {
    Plain(Outlet<'a>),
    Gzip(Box<MultiGzDecoder<Outlet<'a>>>),
}

/// Decompresses a body according to its `Content-Encoding` header.
pub(super) struct Decoder<'a>(Encoding<'a>);

impl<'a> Decoder<'a> {
    pub(super) fn new(headers: &HeaderMap, limit: u64, sink: Sink<'a>) -> Result<Self, FetchError> {
        let outlet = Outlet { sink, left: limit, limit, refused: None };
        let coding = headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str());
        match coding.unwrap_or("unreadable").trim() {
            "identity" => Ok(Self(Encoding::Plain(outlet))),
            "gzip" | "x-gzip" => Ok(Self(Encoding::Gzip(Box::new(MultiGzDecoder::new(outlet))))),
            other => Err(FetchError::Packing(format!("the encoding {other:?} was not requested").into())),
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let written = match &mut self.0 {
            Encoding::Plain(outlet) => outlet.write_all(bytes),
            Encoding::Gzip(decoder) => decoder.write_all(bytes),
        };
        written.map_err(|error| self.reason(error))
    }

    /// Ends the decompression after the last byte. Returns an error if a compressed body is incomplete.
    pub(super) fn finish(mut self) -> Result<(), FetchError> {
        let finished = match &mut self.0 {
            Encoding::Plain(_) => Ok(()),
            Encoding::Gzip(decoder) => decoder.try_finish(),
        };
        finished.map_err(|error| self.reason(error))
    }

    fn reason(&mut self, error: io::Error) -> FetchError {
        let outlet = match &mut self.0 {
            Encoding::Plain(outlet) => outlet,
            Encoding::Gzip(decoder) => decoder.get_mut(),
        };
        outlet.refused.take().unwrap_or_else(|| FetchError::Packing(error.to_string().into()))
    }
}
