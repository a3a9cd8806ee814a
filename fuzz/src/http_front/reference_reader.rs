//! A reader of HTTP/1 requests that shares no code with the front: by the letter of RFC 9112, or with a leniency.
//!
//! It is slow and simple on purpose. Servers or proxies have had each of these leniencies, and requests were smuggled by means of them.
//! A request that the front forwards must mean the same to all of them.

use super::ReadRequest;

/// What a reader tolerates beyond the RFC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leniency {
    /// LF ends a line.
    bare_lf: bool,
    /// A CR alone ends a line.
    bare_cr: bool,
    /// `Name : value` means `Name: value`.
    space_before_colon: bool,
    /// A field's name ends at the first character that is not allowed in it.
    name_ends_anywhere: bool,
    /// A line that begins with a blank continues the line before it.
    folds: bool,
    /// A NUL ends a value.
    nul_ends: bool,
    /// Bytes beyond ASCII and control characters count as blanks around a value.
    wide_blanks: bool,
    /// A length is the number of its leading digits, after an optional sign.
    length_by_prefix: bool,
    /// A length that begins with 0 is octal.
    octal: bool,
    /// Of two lengths, the last one counts.
    last_length: bool,
    /// A length counts although there is a transfer coding.
    length_wins: bool,
    /// Only `chunked` in lower case, with one blank before it, means chunked.
    coding_by_the_byte: bool,
    /// Any coding that contains `chunked` means chunked.
    coding_by_part: bool,
    /// A chunk's size may be written as `0x5`.
    hex_prefix: bool,
    /// A chunk's size is the number of its leading digits, whatever follows them.
    size_by_prefix: bool,
    /// Any two bytes may follow a chunk's data.
    any_two_bytes: bool,
    /// Any blanks separate the words of the first line.
    any_blanks: bool,
}

/// Tolerates nothing.
pub const STRICT: Leniency = Leniency {
    bare_lf: false,
    bare_cr: false,
    space_before_colon: false,
    name_ends_anywhere: false,
    folds: false,
    nul_ends: false,
    wide_blanks: false,
    length_by_prefix: false,
    octal: false,
    last_length: false,
    length_wins: false,
    coding_by_the_byte: false,
    coding_by_part: false,
    hex_prefix: false,
    size_by_prefix: false,
    any_two_bytes: false,
    any_blanks: false,
};

/// Each leniency by itself, and most of them together.
pub const LENIENCIES: [(&str, Leniency); 18] = [
    ("a reader that ends lines at LF", Leniency { bare_lf: true, ..STRICT }),
    ("a reader that ends lines at CR", Leniency { bare_cr: true, ..STRICT }),
    ("a reader that tolerates a space before the colon", Leniency { space_before_colon: true, ..STRICT }),
    ("a reader that ends names early", Leniency { name_ends_anywhere: true, ..STRICT }),
    ("a reader that unfolds lines", Leniency { folds: true, ..STRICT }),
    ("a reader that stops at NUL", Leniency { nul_ends: true, ..STRICT }),
    ("a reader that trims more than blanks", Leniency { wide_blanks: true, ..STRICT }),
    ("a reader that takes prefixes for lengths", Leniency { length_by_prefix: true, ..STRICT }),
    ("a reader that takes lengths for octal", Leniency { octal: true, ..STRICT }),
    ("a reader that takes the last length", Leniency { last_length: true, ..STRICT }),
    ("a reader that takes a length beside a coding", Leniency { length_wins: true, ..STRICT }),
    ("a reader that compares codings by the byte", Leniency { coding_by_the_byte: true, ..STRICT }),
    ("a reader that searches codings for chunked", Leniency { coding_by_part: true, ..STRICT }),
    ("a reader that accepts 0x", Leniency { hex_prefix: true, ..STRICT }),
    ("a reader that takes prefixes for sizes", Leniency { size_by_prefix: true, ..STRICT }),
    ("a reader that skips two bytes behind a chunk", Leniency { any_two_bytes: true, ..STRICT }),
    ("a reader that tolerates any blanks in the first line", Leniency { any_blanks: true, ..STRICT }),
    (
        "a reader that tolerates everything",
        Leniency {
            bare_lf: true,
            space_before_colon: true,
            folds: true,
            nul_ends: true,
            wide_blanks: true,
            length_by_prefix: true,
            last_length: true,
            coding_by_part: true,
            hex_prefix: true,
            size_by_prefix: true,
            any_two_bytes: true,
            any_blanks: true,
            ..STRICT
        },
    ),
];

/// Reads the first request; none if it is not complete.
pub fn read(bytes: &[u8], leniency: Leniency) -> Result<Option<ReadRequest>, &'static str> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at, leniency)? else { return Ok(None) };
    let (method, target) = start(first, leniency)?;
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let Some(text) = line(bytes, &mut at, leniency)? else { return Ok(None) };
        if text.is_empty() {
            break;
        }
        if matches!(text[0], b' ' | b'\t') {
            let last = fields.last_mut().filter(|_| leniency.folds).ok_or("a folded line")?;
            last.1.extend_from_slice(text);
            continue;
        }
        fields.push(field(text, leniency)?);
    }
    let Some((body, trailers)) = read_body(bytes, &mut at, &fields, leniency)? else { return Ok(None) };
    let mut hosts = fields.iter().filter(|(name, _)| name == "host").map(|(_, value)| value.clone());
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("two hosts");
    }
    Ok(Some(ReadRequest { method, target, host, body, trailers, end: at }))
}

/// The next line without its end; none if it is not complete.
fn line<'b>(bytes: &'b [u8], at: &mut usize, leniency: Leniency) -> Result<Option<&'b [u8]>, &'static str> {
    let rest = &bytes[*at..];
    for (end, &byte) in rest.iter().enumerate() {
        let (text, used) = match byte {
            b'\r' if rest.get(end + 1) == Some(&b'\n') => (&rest[..end], end + 2),
            b'\r' if leniency.bare_cr && end + 1 < rest.len() => (&rest[..end], end + 1),
            b'\n' if leniency.bare_lf => (&rest[..end], end + 1),
            b'\n' => return Err("a bare LF"),
            b'\r' if end + 1 < rest.len() => return Err("a bare CR"),
            _ => continue,
        };
        *at += used;
        return Ok(Some(text));
    }
    Ok(None)
}

fn start(text: &[u8], leniency: Leniency) -> Result<(String, String), &'static str> {
    let text = str::from_utf8(text).map_err(|_| "the first line is not UTF-8")?;
    let words: Vec<&str> =
        if leniency.any_blanks { text.split_ascii_whitespace().collect() } else { text.split(' ').collect() };
    match words[..] {
        [method, target, "HTTP/1.1" | "HTTP/1.0"] if !method.is_empty() && !target.is_empty() => {
            Ok((method.to_owned(), target.to_owned()))
        }
        _ => Err("the first line"),
    }
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn field(text: &[u8], leniency: Leniency) -> Result<(String, Vec<u8>), &'static str> {
    let colon = text.iter().position(|&byte| byte == b':').ok_or("no colon")?;
    let (mut name, mut value) = (&text[..colon], &text[colon + 1..]);
    if leniency.space_before_colon {
        name = name.trim_ascii_end();
    }
    if leniency.name_ends_anywhere {
        name = &name[..name.iter().take_while(|&&byte| is_tchar(byte)).count()];
    }
    if name.is_empty() || !name.iter().all(|&byte| is_tchar(byte)) {
        return Err("a name");
    }
    if leniency.nul_ends {
        value = value.split(|&byte| byte == 0).next().unwrap_or_default();
    }
    let blank = |byte: u8| byte == b' ' || byte == b'\t' || (leniency.wide_blanks && !(b' '..0x7F).contains(&byte));
    while let [first, rest @ ..] = value
        && blank(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && blank(*last)
    {
        value = rest;
    }
    if !leniency.nul_ends && value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7F) {
        return Err("a control character");
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // A comparison by the byte needs the bytes as they were sent, with their blanks.
    let raw = leniency.coding_by_the_byte && name == "transfer-encoding";
    Ok((name, if raw { text[colon + 1..].to_vec() } else { value.to_vec() }))
}

type BodyAndTrailers = (Vec<u8>, Vec<String>);

fn read_body(
    bytes: &[u8],
    at: &mut usize,
    fields: &[(String, Vec<u8>)],
    leniency: Leniency,
) -> Result<Option<BodyAndTrailers>, &'static str> {
    let of = |wanted: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &value[..]).collect()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let is_chunked = |value: &[u8]| {
        if leniency.coding_by_the_byte {
            value == b" chunked"
        } else if leniency.coding_by_part {
            value.to_ascii_lowercase().windows(7).any(|part| part == b"chunked")
        } else {
            value.eq_ignore_ascii_case(b"chunked")
        }
    };
    let chunked = match codings[..] {
        [] => false,
        [coding] if is_chunked(coding) => true,
        // Such a reader ignores a coding that it does not know.
        _ if leniency.coding_by_the_byte => false,
        _ => return Err("a coding"),
    };
    if chunked && !(leniency.length_wins && !lengths.is_empty()) {
        if !lengths.is_empty() && !leniency.coding_by_part {
            return Err("a length beside a coding");
        }
        return chunks(bytes, at, leniency);
    }
    let length = match lengths[..] {
        [] => 0,
        [one] => number(one, leniency)?,
        [.., last] if leniency.last_length => number(last, leniency)?,
        _ => return Err("two lengths"),
    };
    let Some(body) = bytes.get(*at..).and_then(|rest| rest.get(..length)) else { return Ok(None) };
    *at += length;
    Ok(Some((body.to_vec(), Vec::new())))
}

fn number(value: &[u8], leniency: Leniency) -> Result<usize, &'static str> {
    let mut text = str::from_utf8(value).map_err(|_| "a length")?;
    if leniency.length_by_prefix {
        text = text.trim_start_matches('+');
        text = &text[..text.bytes().take_while(u8::is_ascii_digit).count()];
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a length");
    }
    let radix = if leniency.octal && text.starts_with('0') { 8 } else { 10 };
    // A number that does not fit is larger than any input.
    Ok(usize::from_str_radix(text, radix).unwrap_or(usize::MAX))
}

fn chunks(bytes: &[u8], at: &mut usize, leniency: Leniency) -> Result<Option<BodyAndTrailers>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some(text) = line(bytes, at, leniency)? else { return Ok(None) };
        let size = size(text, leniency)?;
        if size == 0 {
            break;
        }
        let Some(data) = bytes[*at..].get(..size) else { return Ok(None) };
        body.extend_from_slice(data);
        *at += size;
        let Some(end) = bytes[*at..].get(..2) else { return Ok(None) };
        if end != b"\r\n" && !leniency.any_two_bytes {
            return Err("no line end after a chunk");
        }
        *at += 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(text) = line(bytes, at, leniency)? else { return Ok(None) };
        if text.is_empty() {
            return Ok(Some((body, trailers)));
        }
        trailers.push(field(text, Leniency { coding_by_the_byte: false, ..leniency })?.0);
    }
}

fn size(text: &[u8], leniency: Leniency) -> Result<usize, &'static str> {
    let mut digits = text.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    if leniency.hex_prefix {
        digits = digits.strip_prefix(b"0x").unwrap_or(digits);
    }
    if leniency.size_by_prefix {
        digits = digits.trim_ascii_start();
        digits = &digits[..digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count()];
    }
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("a chunk's size");
    }
    let digits = str::from_utf8(digits).map_err(|_| "a chunk's size")?;
    usize::from_str_radix(digits, 16).map_err(|_| "a chunk's size")
}
