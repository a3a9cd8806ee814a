//! Lines of a torrc, and quoted strings as tor writes them.

/// The lines of a torrc as options and values: comments and blanks left out, continued lines joined.
pub(super) fn split(text: &str) -> Vec<(String, String)> {
    let mut whole: Vec<String> = Vec::new();
    let mut goes_on = false;
    for raw in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (piece, more) = raw.trim_end().strip_suffix('\\').map_or((raw, false), |piece| (piece, true));
        let piece = without_comment(piece).trim();
        match whole.last_mut() {
            Some(line) if goes_on => {
                line.push(' ');
                line.push_str(piece);
            }
            _ => whole.push(piece.to_owned()),
        }
        goes_on = more;
    }
    let pair = |line: String| {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        (key.to_owned(), plain(value.trim()))
    };
    whole.into_iter().filter(|line| !line.is_empty()).map(pair).collect()
}

/// A value that is one quoted string is its content; any other stays as it is.
pub(super) fn plain(value: &str) -> String {
    match unquoted(value) {
        Some((content, rest)) if rest.trim().is_empty() => content,
        _ => value.to_owned(),
    }
}

fn without_comment(line: &str) -> &str {
    let (mut inside, mut escaped) = (false, false);
    let end = line.char_indices().find(|(_, c)| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '\\' if inside && !was_escaped => escaped = true,
            '"' if !was_escaped => inside = !inside,
            _ => {}
        }
        *c == '#' && !inside
    });
    end.map_or(line, |(at, _)| &line[..at])
}

/// Reads a quoted string at the start of a text: its content, and what follows it.
pub(crate) fn unquoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let (mut content, mut chars) = (String::new(), inner.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, &inner[at + 1..])),
            '\\' => {
                let (place, escaped) = chars.next()?;
                match escaped {
                    'n' => content.push('\n'),
                    'r' => content.push('\r'),
                    't' => content.push('\t'),
                    '0'..='7' => {
                        let digits: String = inner[place..].chars().take(3).take_while(|c| c.is_digit(8)).collect();
                        content.push(u8::from_str_radix(&digits, 8).ok()? as char);
                        for _ in 1..digits.len() {
                            chars.next();
                        }
                    }
                    other => content.push(other),
                }
            }
            other => content.push(other),
        }
    }
    None
}

/// Writes a text as a quoted string, with the escapes of C that tor uses.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() || !c.is_ascii() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\{byte:03o}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
