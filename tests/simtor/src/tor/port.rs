//! The SOCKS ports: who connects, what they ask for, and whether that may be asked there.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::engine::Engine;
use super::home::{Connection, Listener, Reader, Writer};
use super::socks::{Command, Parser, Request, Step};
use super::stream;
use super::streams::Asked;
use crate::torrc::{Port, quoted};

/// A client of a SOCKS port with a request.
pub(super) struct Client {
    pub(super) read: Reader,
    pub(super) write: Writer,
    pub(super) request: Request,
    pub(super) extended_errors: bool,
}

/// Serves a port for ever.
pub(super) async fn accept(engine: Arc<Engine>, listener: Listener, port: Port) {
    let source = listener.name();
    loop {
        match listener.accept().await {
            Ok(connection) => {
                tokio::spawn(serve(engine.clone(), connection, port.clone(), source.clone()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn serve(engine: Arc<Engine>, connection: Connection, port: Port, source: String) {
    let (mut read, mut write) = connection.split();
    let Some(request) = handshake(&mut read, &mut write).await else { return };
    if let Err(code) = permitted(&request, &port) {
        let _ = write.write_all(&request.reply(code, None)).await; // a client that is gone needs no answer
        return;
    }
    let asked = asked(&request, &source);
    let client = Client { read, write, request, extended_errors: port.extended_errors };
    stream::run(engine, client, asked).await;
}

async fn handshake(read: &mut Reader, write: &mut Writer) -> Option<Request> {
    let (mut parser, mut buffer) = (Parser::default(), [0; 4096]);
    loop {
        let length = read.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        match parser.take(&buffer[..length]) {
            Step::More(answer) => write.write_all(&answer).await.ok()?,
            Step::Done(answer, request) => {
                write.write_all(&answer).await.ok()?;
                return Some(request);
            }
            Step::Refused(answer) => {
                let _ = write.write_all(&answer).await; // the end follows anyway
                return None;
            }
        }
    }
}

/// Whether the port takes such a request; else the code of the answer.
fn permitted(request: &Request, port: &Port) -> Result<(), u8> {
    let onion = is_onion(&request.host);
    let literal = request.host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    match literal {
        Some(IpAddr::V4(_)) if !port.ipv4 => Err(1),
        Some(IpAddr::V6(_)) if !port.ipv6 => Err(1),
        None if onion && !port.onion => Err(1),
        None if !onion && !port.names => Err(1),
        None if onion && request.command != Command::Connect => Err(1),
        None if onion && !is_onion_address(&request.host) => Err(if port.extended_errors { BAD_ONION } else { 1 }),
        _ => Ok(()),
    }
}

/// tor's own SOCKS code for an onion address that is none.
const BAD_ONION: u8 = 0xF6;

fn is_onion(host: &str) -> bool {
    host.to_ascii_lowercase().trim_end_matches('.').ends_with(".onion")
}

/// An address of version 3 is 56 digits of base 32, of which the last stands for the version; its checksum is not looked at.
fn is_onion_address(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = host.trim_end_matches('.').trim_end_matches(".onion").rsplit('.').next().unwrap_or_default();
    name.len() == 56 && name.ends_with('d') && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

fn asked(request: &Request, source: &str) -> Asked {
    let mut fields = format!(" SOURCE_ADDR={}:0 PURPOSE=USER", source.trim_matches('"'));
    for (key, value) in [("SOCKS_USERNAME", &request.username), ("SOCKS_PASSWORD", &request.password)] {
        if let Some(value) = value {
            fields.push_str(&format!(" {key}={}", quoted(value)));
        }
    }
    fields.push_str(&format!(" CLIENT_PROTOCOL=SOCKS{} NYM_EPOCH=0 SESSION_GROUP=-4", request.version));
    Asked {
        target: format!("{}:{}", request.host, request.port),
        resolve: request.command != Command::Connect,
        onion: is_onion(&request.host),
        fields,
    }
}
