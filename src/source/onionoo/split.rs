//! Cuts a document `{"key":value,…,"relays":[{…},{…}],…}` into its records while it arrives.
//!
//! It knows strings, escapes and nesting, and nothing else of JSON: whether a record is sound is for whoever reads it
//! to say. So it needs one pass, one record's worth of memory, and can step over a record of any length.

use super::super::Garbage;

/// The longest record that is read. The largest in the network has 20 kB (families); ten times that is garbage.
const LONGEST: usize = 256 << 10;

/// The longest value of the envelope that is read: they are dates and numbers.
const LONGEST_FIELD: usize = 256;

/// Deeper than any document of this kind: a record has three levels.
const DEEPEST: u32 = 64;

/// One thing found in the stream.
pub(super) enum Piece<'a> {
    /// One element of `relays`, an object.
    Record(&'a [u8]),
    /// One element of `relays` that is no object, or is too long.
    Skipped,
    /// A short value of the envelope, as JSON.
    Field(&'a str, &'a str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the opening brace.
    #[default]
    Start,
    /// Where a key of the envelope may begin.
    Key,
    /// Behind a key.
    Colon,
    /// In a value of the envelope.
    Value,
    /// In `relays`, between two elements.
    Between,
    /// In an element of `relays`.
    Record,
    /// Behind the closing brace.
    End,
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    at: At,
    /// Braces and brackets open inside the value or record of this moment.
    depth: u32,
    in_string: bool,
    escaped: bool,
    key: Vec<u8>,
    held: Vec<u8>,
    too_long: bool,
    /// The array of relays was there.
    relays: bool,
}

impl Splitter {
    /// Takes the next bytes and tells `found` of each piece that is complete with them.
    pub(super) fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece<'_>)) -> Result<(), Garbage> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Records are nearly all of the document: they have the fast way.
            rest = if self.at == At::Record { self.record(rest, found)? } else { self.envelope(rest, found)? };
        }
        Ok(())
    }

    /// True end: the document was closed and had relays in it.
    pub(super) fn finish(&self) -> Result<(), Garbage> {
        match (self.at, self.relays) {
            (At::End, true) => Ok(()),
            (At::End, false) => Err(Garbage("the document has no relays in it")),
            (At::Start, _) => Err(Garbage("the answer is empty")),
            _ => Err(Garbage("the document ends in the middle")),
        }
    }

    /// Reads on in a record; returns what is behind it.
    fn record<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Piece<'_>)) -> Result<&'a [u8], Garbage> {
        for (i, &byte) in bytes.iter().enumerate() {
            if !self.step(byte)? {
                continue;
            }
            let (piece, rest) = bytes.split_at(i + 1);
            self.at = At::Between;
            if self.too_long || self.held.len() + piece.len() > LONGEST {
                found(Piece::Skipped);
            } else if self.held.is_empty() {
                found(Piece::Record(piece)); // all of it in this chunk: no copy
            } else {
                self.held.extend_from_slice(piece);
                found(Piece::Record(&self.held));
            }
            self.forget();
            return Ok(rest);
        }
        self.hold(bytes, LONGEST);
        Ok(&[])
    }

    /// One byte inside a value. True if it closes the outermost brace or bracket of it.
    fn step(&mut self, byte: u8) -> Result<bool, Garbage> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(Garbage("the document is nested too deep"));
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return Ok(self.depth == 0);
            }
            _ => {}
        }
        Ok(false)
    }

    /// Reads on outside of the records, byte by byte: that is a few hundred of them.
    fn envelope<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Piece<'_>)) -> Result<&'a [u8], Garbage> {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        let space = byte.is_ascii_whitespace();
        match (self.at, byte) {
            (At::Start, b'{') => self.at = At::Key,
            (At::Start, _) if !space => return Err(Garbage("the answer is no JSON object")),
            (At::Key, _) => self.in_key(byte)?,
            (At::Colon, b':') => self.at = At::Value,
            (At::Colon, _) if !space => return Err(Garbage("a key of the document has no value")),
            (At::Value, _) => self.in_value(byte, found)?,
            (At::Between, b']') => self.at = At::Key,
            (At::Between, b'{') => {
                self.at = At::Record;
                return Ok(bytes);
            }
            (At::Between, _) if byte != b',' && !space => return Err(Garbage("an element of `relays` is no record")),
            (At::End, _) if !space => return Err(Garbage("something stands behind the document")),
            _ => {}
        }
        Ok(rest)
    }

    fn in_key(&mut self, byte: u8) -> Result<(), Garbage> {
        match byte {
            b'"' if self.in_string => {
                self.in_string = false;
                self.at = At::Colon;
            }
            _ if self.in_string => {
                if self.held.len() >= LONGEST_FIELD {
                    return Err(Garbage("a key of the document is too long"));
                }
                self.held.push(byte);
            }
            b'"' => self.in_string = true,
            b'}' => self.at = At::End,
            b',' => {}
            _ if byte.is_ascii_whitespace() => {}
            _ => return Err(Garbage("the document is no JSON")),
        }
        if self.at == At::Colon {
            self.key = std::mem::take(&mut self.held);
        }
        Ok(())
    }

    fn in_value(&mut self, byte: u8, found: &mut impl FnMut(Piece<'_>)) -> Result<(), Garbage> {
        if self.key == b"relays" && self.held.is_empty() {
            match byte {
                b'[' => {
                    (self.at, self.relays) = (At::Between, true);
                    self.forget();
                }
                _ if byte.is_ascii_whitespace() => {}
                _ => return Err(Garbage("`relays` is no list")),
            }
            return Ok(());
        }
        let outside = self.depth == 0 && !self.in_string;
        if outside && matches!(byte, b',' | b'}') {
            if let (false, Ok(key), Ok(value)) = (self.too_long, str::from_utf8(&self.key), str::from_utf8(&self.held))
            {
                found(Piece::Field(key, value.trim()));
            }
            self.at = if byte == b',' { At::Key } else { At::End };
            self.forget();
            return Ok(());
        }
        self.step(byte)?;
        self.hold(&[byte], LONGEST_FIELD);
        Ok(())
    }

    /// Keeps what belongs to the record or value of this moment, unless that is too long to be read at all.
    fn hold(&mut self, bytes: &[u8], longest: usize) {
        if self.too_long || self.held.len() + bytes.len() > longest {
            self.too_long = true;
            self.held.clear();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn forget(&mut self) {
        self.held.clear();
        self.too_long = false;
    }
}

#[cfg(test)]
impl Splitter {
    /// Bytes kept between two chunks.
    pub(super) fn held(&self) -> usize {
        self.held.capacity()
    }
}
