//! DNS messages with one question, and their answers: no I/O.

use std::net::IpAddr;

use super::Answer;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Response, recursion desired and available.
const FLAGS: u16 = 0x8180;

/// How long an answer may be kept, in seconds. Tor raises it to five minutes anyway.
const TIME_TO_LIVE: u32 = 60;

/// The question of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    id: [u8; 2],
    /// The question's bytes in the letter case of the query: tor checks that the answer repeats the case.
    raw: Vec<u8>,
    kind: u16,
    /// In lower case.
    pub name: String,
}

/// Reads the question of a query with exactly one question.
pub(super) fn parse(packet: &[u8]) -> Option<Question> {
    let header = packet.get(..HEADER)?;
    let is_query = header[2] & 0x80 == 0;
    if !is_query || header[4..6] != [0, 1] {
        return None;
    }
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => labels.push(std::str::from_utf8(packet.get(at..at + length)?).ok()?.to_ascii_lowercase()),
            _ => return None, // a pointer: there is nothing before the first question to point at
        }
        at += length;
    }
    let raw = packet.get(HEADER..at + 4)?.to_vec();
    let kind = u16::from_be_bytes([packet[at], packet[at + 1]]);
    Some(Question { id: [header[0], header[1]], raw, kind, name: labels.join(".") })
}

/// The reply to a question; none for [`Answer::Silent`].
pub(super) fn reply(question: &Question, answer: &Answer) -> Option<Vec<u8>> {
    let (code, addresses): (u16, &[IpAddr]) = match answer {
        Answer::Addresses(addresses) => (0, addresses),
        Answer::Failed => (2, &[]),
        Answer::NoSuchName => (3, &[]),
        Answer::Refused => (5, &[]),
        Answer::Silent => return None,
    };
    let records: Vec<Vec<u8>> = addresses.iter().filter_map(|address| record(question.kind, *address)).collect();
    let mut reply = Vec::with_capacity(HEADER + question.raw.len() + 28 * records.len());
    reply.extend(question.id);
    let count = u16::try_from(records.len()).ok()?;
    for word in [FLAGS | code, 1, count, 0, 0] {
        reply.extend(word.to_be_bytes());
    }
    reply.extend(&question.raw);
    records.iter().for_each(|record| reply.extend(record));
    Some(reply)
}

/// A resource record; none if the address is of another family than the question.
fn record(kind: u16, address: IpAddr) -> Option<Vec<u8>> {
    let data = match (kind, address) {
        (TYPE_A, IpAddr::V4(ip)) => ip.octets().to_vec(),
        (TYPE_AAAA, IpAddr::V6(ip)) => ip.octets().to_vec(),
        _ => return None,
    };
    let mut record = vec![0xc0, 0x0c]; // the name: a pointer to the question's
    record.extend(kind.to_be_bytes());
    record.extend(1u16.to_be_bytes());
    record.extend(TIME_TO_LIVE.to_be_bytes());
    record.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    record.extend(data);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for `eChO.test`.
    fn query(kind: u16) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(b"\x04eChO\x04test\x00");
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet
    }

    #[test]
    fn the_answer_repeats_the_question_as_asked() {
        let question = parse(&query(TYPE_A)).unwrap();
        assert_eq!(question.name, "echo.test");
        let reply = reply(&question, &Answer::ip([127, 9, 8, 7])).unwrap();
        assert_eq!(reply[..HEADER], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&reply[HEADER..HEADER + 15], &query(TYPE_A)[HEADER..HEADER + 15]);
        assert!(reply.ends_with(&[0, 4, 127, 9, 8, 7]));
    }

    #[test]
    fn each_kind_gets_its_own_addresses_and_each_failure_its_code() {
        let both = Answer::Addresses(vec!["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()]);
        let told = |kind, answer: &Answer| reply(&parse(&query(kind)).unwrap(), answer).map(|r| (r[3] & 15, r[7]));
        for (kind, answer, want) in [
            (TYPE_A, &both, Some((0, 1))),
            (TYPE_AAAA, &both, Some((0, 1))),
            (16, &both, Some((0, 0))),
            (TYPE_A, &Answer::Failed, Some((2, 0))),
            (TYPE_A, &Answer::NoSuchName, Some((3, 0))),
            (TYPE_A, &Answer::Refused, Some((5, 0))),
            (TYPE_A, &Answer::Silent, None),
        ] {
            assert_eq!(told(kind, answer), want, "{kind} {answer:?}");
        }
    }

    #[test]
    fn a_truncated_question_is_ignored() {
        let whole = query(TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(parse(&answer), None);
    }
}
