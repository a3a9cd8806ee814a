//! Tests with replies that tor really sends, and property tests with generated replies.

use proptest::prelude::*;

use super::*;

fn line(code: u16, text: &str) -> Line {
    Line { code, text: text.into(), data: None }
}

fn all(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
    let mut parser = Parser::new();
    parser.feed(bytes);
    let mut replies = Vec::new();
    while let Some(reply) = parser.next(MAX_REPLY)? {
        replies.push(reply);
    }
    Ok(replies)
}

#[test]
fn reads_every_form_of_reply() {
    let replies = all(b"250 OK\r\n\
        250-AUTH METHODS=COOKIE\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n\
        250+md/all=\r\nonion-key\r\n..dotted\r\n.\r\n250 OK\r\n\
        650 CIRC 3 BUILT\r\n\
        552 Unknown circuit \"9999\"\r\n\
        250\r\n")
    .unwrap();
    assert_eq!(replies.len(), 6);
    assert_eq!(replies[0].lines(), [line(250, "OK")]);
    assert_eq!(replies[1].lines().len(), 3);
    assert_eq!(replies[2].value("md/all"), Some("onion-key\n.dotted\n"));
    assert!(replies[3].is_event() && !replies[0].is_event());
    assert_eq!((replies[4].code(), replies[4].is_ok()), (552, false));
    assert!(replies[5].is_ok());
}

#[test]
fn refuses_what_is_no_reply() {
    for (bytes, why) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], ReplyError::NotAReply),
        (b"\r\n", ReplyError::NotAReply),
        (b"25\r\n", ReplyError::NotAReply),
        (b"250_OK\r\n", ReplyError::NotAReply),
        (b"2a0 OK\r\n", ReplyError::NotAReply),
        (b"250-a\r\n650 CIRC\r\n", ReplyError::Mixed),
        (b"650-CIRC\r\n250 OK\r\n", ReplyError::Mixed),
    ] {
        assert_eq!(all(bytes), Err(why), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn bounds_lines_and_replies() {
    let long = vec![b'a'; MAX_LINE + 2];
    assert_eq!(all(&long), Err(ReplyError::LineTooLong), "an unfinished line");
    let mut parser = Parser::new();
    let mut fed = 0;
    let error = loop {
        parser.feed(b"250-\r\n"); // endless empty lines
        fed += 1;
        if let Err(error) = parser.next(1000) {
            break error;
        }
        assert!(fed < 100, "nothing stops it");
    };
    assert_eq!(error, ReplyError::ReplyTooLong { limit: 1000 });
}

#[test]
fn the_bound_of_an_answer_is_the_askers() {
    let mut bytes = b"250+md/all=\r\n".to_vec();
    for _ in 0..9_000 {
        bytes.extend([b'x'; 998]);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b".\r\n250 OK\r\n");
    assert_eq!(all(&bytes), Err(ReplyError::ReplyTooLong { limit: MAX_REPLY }));
    let mut parser = Parser::new();
    parser.feed(&bytes);
    let reply = parser.next(16 * 1024 * 1024).unwrap().unwrap();
    assert_eq!(reply.value("md/all").map(str::len), Some(9_000 * 999));
}

#[test]
fn reads_pairs_in_any_order_and_form() {
    let text = r#"NEW SOCKS_USERNAME="a \"b\" \\ \303\274 \t" X PURPOSE=USER EMPTY= Q="" TIME=2026-11-21T12:04:51.6"#;
    let got: Vec<_> = pairs(text).map(|(key, value)| (key, value.into_owned())).collect();
    let want = [
        ("SOCKS_USERNAME", "a \"b\" \\ ü \t"),
        ("PURPOSE", "USER"),
        ("EMPTY", ""),
        ("Q", ""),
        ("TIME", "2026-11-21T12:04:51.6"),
    ];
    assert_eq!(got, want.map(|(key, value)| (key, value.to_owned())));
    assert_eq!(pairs("A=\"never closed B=1").collect::<Vec<_>>(), [("A", "\"never closed B=1".into())]);
}

#[test]
fn a_word_is_split_from_the_rest() {
    for (text, want) in [("a b c", ("a", "b c")), ("  a", ("a", "")), ("", ("", "")), ("a   b", ("a", "b"))] {
        assert_eq!(word(text), want, "{text:?}");
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let text = "[ -~äπ]{0,40}";
    let data = proptest::option::of(proptest::collection::vec("\\.{0,2}[ -~é]{0,20}", 0..5));
    let line = (text, data).prop_map(|(text, data)| Line {
        code: 250,
        text: text.into(),
        data: data.map(|rows| rows.iter().map(|row| format!("{row}\n")).collect::<String>().into()),
    });
    (proptest::collection::vec(line, 0..6), text, prop_oneof![Just(250u16), Just(650), Just(552)]).prop_map(
        |(mut lines, last, code)| {
            lines.push(Line { code, text: last.into(), data: None });
            lines.iter_mut().for_each(|line| line.code = code);
            Reply { lines }
        },
    )
}

proptest! {
    #[test]
    fn reading_undoes_writing_however_the_bytes_are_cut(
        replies in proptest::collection::vec(any_reply(), 1..5),
        cuts in proptest::collection::vec(1usize..50, 1..40),
    ) {
        let mut bytes = Vec::new();
        replies.iter().for_each(|reply| reply.encode(&mut bytes));
        prop_assert_eq!(&all(&bytes).unwrap(), &replies);
        let (mut parser, mut got, mut rest) = (Parser::new(), Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            parser.feed(piece);
            while let Some(reply) = parser.next(MAX_REPLY).unwrap() {
                got.push(reply);
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, replies);
    }

    #[test]
    fn no_bytes_panic_or_pile_up(bytes in proptest::collection::vec(prop_oneof![
        any::<u8>(), prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'2'), Just(b'5'), Just(b'0'), Just(b'+'), Just(b'.'), Just(b' ')]
    ], 0..600)) {
        let mut parser = Parser::new();
        for piece in bytes.chunks(7) {
            parser.feed(piece);
            loop {
                match parser.next(200) {
                    Ok(Some(reply)) => prop_assert!(!reply.lines().is_empty()),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    #[test]
    fn unquoting_undoes_quoting_and_no_quoted_text_ends_a_line(text in "\\PC{0,60}|[\\x00-\\x7f]{0,60}") {
        let quoted = quote(&text);
        prop_assert!(!quoted.contains(['\r', '\n', '\0']));
        let line = format!("{quoted} REST=1");
        prop_assert_eq!(unquote(&line), Some((text, " REST=1")));
    }

    #[test]
    fn no_text_panics_the_readers_of_values(text in "\\PC{0,80}|[A-Z =\"\\\\0-9]{0,80}") {
        let _ = (pairs(&text).count(), unquote(&text), word(&text));
    }
}
