//! A WebSocket that echoes every message: the part of RFC 6455 that an echo needs.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The constant that RFC 6455 appends to a client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The largest message that is echoed. Not tuned: tests send less than a tenth of it.
const MAX_MESSAGE: u64 = 1 << 20;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The `Sec-WebSocket-Accept` for a client's key.
pub(super) fn accept_key(key: &str) -> String {
    BASE64_STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")))
}

/// Sends every frame back, answers a ping with a pong, and ends after a close.
pub(super) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let (first, payload) = read(&mut stream).await?;
        let opcode = first & 0x0f;
        let reply = if opcode == PING { (first & 0xf0) | PONG } else { first };
        if opcode != PONG {
            write(&mut stream, reply, &payload).await?;
        }
        if opcode == CLOSE {
            return stream.shutdown().await;
        }
    }
}

/// One frame: its first byte and its payload, unmasked.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into()); // a client must mask
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first, payload))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(short as u8),
        middle @ 126..65_536 => {
            frame.push(126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_every_length_come_back_unmasked() {
        for length in [0usize, 5, 125, 126, 65_535, 65_536] {
            let payload = vec![7u8; length];
            let mut masked = vec![0x82];
            match length {
                0..126 => masked.push(0x80 | length as u8),
                126..65_536 => masked.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat()),
                _ => masked.extend([&[0x80 | 127][..], &(length as u64).to_be_bytes()].concat()),
            }
            masked.extend([1, 2, 3, 4]);
            masked.extend(payload.iter().zip([1u8, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
            masked.extend([0x88, 0x80, 0, 0, 0, 0]);
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            theirs.write_all(&masked).await.unwrap();
            echo(ours).await.unwrap();
            let mut back = Vec::new();
            theirs.read_to_end(&mut back).await.unwrap();
            assert!(back.ends_with(&[&payload[..], &[0x88, 0]].concat()), "{length}");
        }
    }
}
