//! Splits a document `{"key":value,…,"relays":[{…},{…}],…}` into its records while the document arrives.
//!
//! The splitter understands strings, escapes and nesting, and nothing else of JSON: the caller parses each record. So
//! one pass over the document is enough, no more than one record is in memory, and a record of any length can be
//! skipped.

use super::super::Garbage;

/// The longest record that is passed to the caller, in bytes. The longest record in the network has 20 kB, because its
/// relay belongs to a large family.
const LONGEST: usize = 256 << 10;

/// The longest value outside the array `relays` that is passed to the caller, in bytes. Such values are dates and
/// numbers.
const LONGEST_FIELD: usize = 256;

/// The deepest nesting of braces and brackets that is accepted. A record has three levels.
const DEEPEST: u32 = 64;

/// A part of the document that is passed to the caller.
pub(super) enum Piece<'a> {
    /// An object in the array `relays`.
    Record(&'a [u8]),
    /// An object in the array `relays` that is too long and was skipped.
    Skipped,
    /// A key and its short value outside the array `relays`, as JSON.
    Field(&'a str, &'a str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the opening brace of the document.
    #[default]
    Start,
    /// At a place where a key of the document may begin.
    Key,
    /// Between a key and its colon.
    Colon,
    /// Inside a value of the document.
    Value,
    /// In the array `relays`, between two elements.
    Between,
    /// Inside an element of the array `relays`.
    Record,
    /// After the closing brace of the document.
    End,
}

/// The state of the splitter between two chunks of the document.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    at: At,
    /// How many braces and brackets are open in the current value or record.
    depth: u32,
    in_string: bool,
    escaped: bool,
    key: Vec<u8>,
    held: Vec<u8>,
    too_long: bool,
    /// True after the array `relays` was found.
    relays: bool,
}

impl Splitter {
    /// Reads the next bytes, and calls `found` with each part that is complete.
    pub(super) fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece<'_>)) -> Result<(), Garbage> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Nearly all bytes of the document belong to records, so records have a fast path.
            rest = if self.at == At::Record { self.record(rest, found)? } else { self.envelope(rest, found)? };
        }
        Ok(())
    }

    /// Returns an error if the document is incomplete, or has no array `relays`.
    pub(super) fn finish(&self) -> Result<(), Garbage> {
        match (self.at, self.relays) {
            (At::End, true) => Ok(()),
            (At::End, false) => Err(Garbage("the document has no `relays`")),
            (At::Start, _) => Err(Garbage("the answer is empty")),
            _ => Err(Garbage("the document is incomplete")),
        }
    }

    /// Continues to read a record. Returns the bytes after the record.
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
                found(Piece::Record(piece)); // the whole record is in this chunk, so no copy is needed
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

    /// Reads one byte of a value. Returns true if this byte closes the outermost brace or bracket of the value.
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
                    return Err(Garbage("the document is nested too deeply"));
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

    /// Reads the parts of the document outside the records, byte by byte. These parts have a few hundred bytes.
    fn envelope<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Piece<'_>)) -> Result<&'a [u8], Garbage> {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        let space = byte.is_ascii_whitespace();
        match (self.at, byte) {
            (At::Start, b'{') => self.at = At::Key,
            (At::Start, _) if !space => return Err(Garbage("the answer is not a JSON object")),
            (At::Key, _) => self.in_key(byte)?,
            (At::Colon, b':') => self.at = At::Value,
            (At::Colon, _) if !space => return Err(Garbage("a key of the document has no value")),
            (At::Value, _) => self.in_value(byte, found)?,
            (At::Between, b']') => self.at = At::Key,
            (At::Between, b'{') => {
                self.at = At::Record;
                return Ok(bytes);
            }
            (At::Between, _) if byte != b',' && !space => {
                return Err(Garbage("an element of `relays` is not an object"));
            }
            (At::End, _) if !space => return Err(Garbage("the document is followed by other bytes")),
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
            _ => return Err(Garbage("the document is not JSON")),
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
                _ => return Err(Garbage("`relays` is not an array")),
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

    /// Keeps bytes of the current record or value until the next chunk, unless the record or value is too long.
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
    /// How many bytes are kept between two chunks.
    pub(super) fn held(&self) -> usize {
        self.held.capacity()
    }
}
