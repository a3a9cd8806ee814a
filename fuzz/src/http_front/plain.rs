//! A reader of HTTP/1 requests that shares nothing with the front: to the letter of RFC 9112, or with a leniency.
//!
//! It is slow and plain on purpose. Each leniency is one that servers or proxies have had and that requests were smuggled
//! by; what the front lets through must mean the same to all of them.

use super::Seen;

/// What a reader forgives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lax {
    /// LF ends a line.
    bare_lf: bool,
    /// A CR alone ends one as well.
    bare_cr: bool,
    /// `Name : value` is `Name: value`.
    space_before_colon: bool,
    /// A name is read up to the first character that cannot be in one.
    name_ends_anywhere: bool,
    /// A line that begins with a blank continues the one before it.
    folds: bool,
    /// A NUL ends a value.
    nul_ends: bool,
    /// Bytes beyond ASCII and controls are blanks around a value.
    wide_blanks: bool,
    /// A length is what the leading digits say, after a sign.
    length_by_prefix: bool,
    /// A length that begins with 0 is octal.
    octal: bool,
    /// Of two lengths the last counts.
    last_length: bool,
    /// A length counts even beside a coding.
    length_wins: bool,
    /// Only `chunked` in small letters, one blank before it, is chunked.
    coding_by_the_byte: bool,
    /// Any coding that contains `chunked` is.
    coding_by_part: bool,
    /// A chunk's size may be written `0x5`.
    hex_prefix: bool,
    /// A chunk's size is what its leading digits say, whatever follows.
    size_by_prefix: bool,
    /// What follows a chunk's data is two bytes, whatever they are.
    any_two_bytes: bool,
    /// Any blanks part the words of the first line.
    any_blanks: bool,
}

/// Nothing is forgiven.
pub const STRICT: Lax = Lax {
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

/// Each leniency by itself.
pub const QUIRKS: [(&str, Lax); 18] = [
    ("a reader that ends lines at LF", Lax { bare_lf: true, ..STRICT }),
    ("a reader that ends lines at CR", Lax { bare_cr: true, ..STRICT }),
    ("a reader that forgives a space before the colon", Lax { space_before_colon: true, ..STRICT }),
    ("a reader that ends names early", Lax { name_ends_anywhere: true, ..STRICT }),
    ("a reader that unfolds lines", Lax { folds: true, ..STRICT }),
    ("a reader that stops at NUL", Lax { nul_ends: true, ..STRICT }),
    ("a reader that trims what is no blank", Lax { wide_blanks: true, ..STRICT }),
    ("a reader that takes prefixes for lengths", Lax { length_by_prefix: true, ..STRICT }),
    ("a reader of octal", Lax { octal: true, ..STRICT }),
    ("a reader of the last length", Lax { last_length: true, ..STRICT }),
    ("a reader of lengths beside codings", Lax { length_wins: true, ..STRICT }),
    ("a reader that compares codings by the byte", Lax { coding_by_the_byte: true, ..STRICT }),
    ("a reader that looks for chunked in codings", Lax { coding_by_part: true, ..STRICT }),
    ("a reader of 0x", Lax { hex_prefix: true, ..STRICT }),
    ("a reader that takes prefixes for sizes", Lax { size_by_prefix: true, ..STRICT }),
    ("a reader that skips two bytes behind a chunk", Lax { any_two_bytes: true, ..STRICT }),
    ("a reader that forgives any blanks in the first line", Lax { any_blanks: true, ..STRICT }),
    (
        "a reader that forgives everything",
        Lax {
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

/// The first request; none if there is only a part of one.
pub fn read(bytes: &[u8], lax: Lax) -> Result<Option<Seen>, &'static str> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at, lax)? else { return Ok(None) };
    let (method, target) = start(first, lax)?;
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let Some(text) = line(bytes, &mut at, lax)? else { return Ok(None) };
        if text.is_empty() {
            break;
        }
        if matches!(text[0], b' ' | b'\t') {
            let last = fields.last_mut().filter(|_| lax.folds).ok_or("a folded line")?;
            last.1.extend_from_slice(text);
            continue;
        }
        fields.push(field(text, lax)?);
    }
    let Some((body, trailers)) = read_body(bytes, &mut at, &fields, lax)? else { return Ok(None) };
    let mut hosts = fields.iter().filter(|(name, _)| name == "host").map(|(_, value)| value.clone());
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("two hosts");
    }
    Ok(Some(Seen { method, target, host, body, trailers, end: at }))
}

/// The next line without its end; none if it is not whole.
fn line<'b>(bytes: &'b [u8], at: &mut usize, lax: Lax) -> Result<Option<&'b [u8]>, &'static str> {
    let rest = &bytes[*at..];
    for (end, &byte) in rest.iter().enumerate() {
        let (text, used) = match byte {
            b'\r' if rest.get(end + 1) == Some(&b'\n') => (&rest[..end], end + 2),
            b'\r' if lax.bare_cr && end + 1 < rest.len() => (&rest[..end], end + 1),
            b'\n' if lax.bare_lf => (&rest[..end], end + 1),
            b'\n' => return Err("a bare LF"),
            b'\r' if end + 1 < rest.len() => return Err("a bare CR"),
            _ => continue,
        };
        *at += used;
        return Ok(Some(text));
    }
    Ok(None)
}

fn start(text: &[u8], lax: Lax) -> Result<(String, String), &'static str> {
    let text = str::from_utf8(text).map_err(|_| "the first line is no text")?;
    let words: Vec<&str> =
        if lax.any_blanks { text.split_ascii_whitespace().collect() } else { text.split(' ').collect() };
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

fn field(text: &[u8], lax: Lax) -> Result<(String, Vec<u8>), &'static str> {
    let colon = text.iter().position(|&byte| byte == b':').ok_or("no colon")?;
    let (mut name, mut value) = (&text[..colon], &text[colon + 1..]);
    if lax.space_before_colon {
        name = name.trim_ascii_end();
    }
    if lax.name_ends_anywhere {
        name = &name[..name.iter().take_while(|&&byte| is_tchar(byte)).count()];
    }
    if name.is_empty() || !name.iter().all(|&byte| is_tchar(byte)) {
        return Err("a name");
    }
    if lax.nul_ends {
        value = value.split(|&byte| byte == 0).next().unwrap_or_default();
    }
    let blank = |byte: u8| byte == b' ' || byte == b'\t' || (lax.wide_blanks && !(b' '..0x7F).contains(&byte));
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
    if !lax.nul_ends && value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7F) {
        return Err("a control character");
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // What is compared by the byte is compared with what stands there, and not with what is left of it.
    let raw = lax.coding_by_the_byte && name == "transfer-encoding";
    Ok((name, if raw { text[colon + 1..].to_vec() } else { value.to_vec() }))
}

type BodyAndTrailers = (Vec<u8>, Vec<String>);

fn read_body(
    bytes: &[u8],
    at: &mut usize,
    fields: &[(String, Vec<u8>)],
    lax: Lax,
) -> Result<Option<BodyAndTrailers>, &'static str> {
    let of = |wanted: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &value[..]).collect()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let is_chunked = |value: &[u8]| {
        if lax.coding_by_the_byte {
            value == b" chunked"
        } else if lax.coding_by_part {
            value.to_ascii_lowercase().windows(7).any(|part| part == b"chunked")
        } else {
            value.eq_ignore_ascii_case(b"chunked")
        }
    };
    let chunked = match codings[..] {
        [] => false,
        [coding] if is_chunked(coding) => true,
        // These do not know it and go by the rest.
        _ if lax.coding_by_the_byte => false,
        _ => return Err("a coding"),
    };
    if chunked && !(lax.length_wins && !lengths.is_empty()) {
        if !lengths.is_empty() && !lax.coding_by_part {
            return Err("a length beside a coding");
        }
        return chunks(bytes, at, lax);
    }
    let length = match lengths[..] {
        [] => 0,
        [one] => number(one, lax)?,
        [.., last] if lax.last_length => number(last, lax)?,
        _ => return Err("two lengths"),
    };
    let Some(body) = bytes.get(*at..).and_then(|rest| rest.get(..length)) else { return Ok(None) };
    *at += length;
    Ok(Some((body.to_vec(), Vec::new())))
}

fn number(value: &[u8], lax: Lax) -> Result<usize, &'static str> {
    let mut text = str::from_utf8(value).map_err(|_| "a length")?;
    if lax.length_by_prefix {
        text = text.trim_start_matches('+');
        text = &text[..text.bytes().take_while(u8::is_ascii_digit).count()];
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a length");
    }
    let radix = if lax.octal && text.starts_with('0') { 8 } else { 10 };
    // More than there is of anything is more than there is here.
    Ok(usize::from_str_radix(text, radix).unwrap_or(usize::MAX))
}

fn chunks(bytes: &[u8], at: &mut usize, lax: Lax) -> Result<Option<BodyAndTrailers>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some(text) = line(bytes, at, lax)? else { return Ok(None) };
        let size = size(text, lax)?;
        if size == 0 {
            break;
        }
        let Some(data) = bytes[*at..].get(..size) else { return Ok(None) };
        body.extend_from_slice(data);
        *at += size;
        let Some(end) = bytes[*at..].get(..2) else { return Ok(None) };
        if end != b"\r\n" && !lax.any_two_bytes {
            return Err("no line's end behind a chunk");
        }
        *at += 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(text) = line(bytes, at, lax)? else { return Ok(None) };
        if text.is_empty() {
            return Ok(Some((body, trailers)));
        }
        trailers.push(field(text, Lax { coding_by_the_byte: false, ..lax })?.0);
    }
}

fn size(text: &[u8], lax: Lax) -> Result<usize, &'static str> {
    let mut digits = text.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    if lax.hex_prefix {
        digits = digits.strip_prefix(b"0x").unwrap_or(digits);
    }
    if lax.size_by_prefix {
        digits = digits.trim_ascii_start();
        digits = &digits[..digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count()];
    }
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("a chunk's size");
    }
    let digits = str::from_utf8(digits).map_err(|_| "a chunk's size")?;
    usize::from_str_radix(digits, 16).map_err(|_| "a chunk's size")
}
