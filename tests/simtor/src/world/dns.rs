//! How exits resolve names: one question to the name server of the settings. Pure but for [`ask`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long a question waits for its answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a question is asked.
const TRIES: usize = 3;

/// What a name comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This address.
    Address(IpAddr),
    /// There is none.
    Unknown,
    /// Nobody answered.
    Silence,
}

/// Asks a name server for the IPv4 address of a name, from an exit's own address.
pub(super) async fn ask(server: SocketAddr, from: Ipv4Addr, name: &str) -> io::Result<Answer> {
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(server).await?;
    let id: u16 = rand::random();
    let Some(question) = question(id, name) else { return Ok(Answer::Unknown) };
    let mut packet = [0; 1500];
    for _ in 0..TRIES {
        socket.send(&question).await?;
        if let Ok(Ok(length)) = timeout(PATIENCE, socket.recv(&mut packet)).await {
            return Ok(answer(id, &packet[..length]).map_or(Answer::Unknown, Answer::Address));
        }
    }
    Ok(Answer::Silence)
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion desired, one question
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        packet.push(length);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]); // the end of the name, A, IN
    Some(packet)
}

/// The first IPv4 address in an answer to this question.
fn answer(id: u16, packet: &[u8]) -> Option<IpAddr> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if word(0)? != id || word(2)? & 0xF != 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = past_name(packet, at)? + 4;
    }
    for _ in 0..word(6)? {
        at = past_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            return Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    None
}

fn past_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xC0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_failure_is_none() {
        let question = question(7, "a.test").unwrap();
        assert_eq!(&question[12..], b"\x01a\x04test\0\0\x01\0\x01");
        let mut reply = question.clone();
        (reply[2], reply[7]) = (0x81, 1);
        reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\x64\x50\x01");
        assert_eq!(answer(7, &reply), Some(IpAddr::from([127, 100, 80, 1])));
        assert_eq!(answer(8, &reply), None);
        reply[3] = 3;
        assert_eq!(answer(7, &reply), None);
        assert_eq!(super::question(7, "a..b"), None);
        for cut in 0..reply.len() {
            let _ = answer(7, &reply[..cut]); // whatever it is: it ends
        }
    }
}
