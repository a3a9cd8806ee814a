//! `exitgate-pieces PIECE COUNT` runs one hot piece of code COUNT times, for `run.sh` to count its instructions under callgrind.
//!
//! The data of a piece is made before the first repetition. `run.sh` subtracts a run with fewer repetitions from a run with more, so what
//! it takes to make the data does not count. `exitgate-pieces tunnels PORT ECHO COUNT` opens COUNT tunnels, one after the other, through a
//! gateway that runs under callgrind itself.

mod decisions;

use std::hint::black_box;
use std::io::{Read, Result, Write};
use std::net::TcpListener;
use std::process::ExitCode;

use exitgate::gateway::http::head::Scan;
use exitgate::gateway::http::request::Request;
use exitgate::gateway::socks::Socks;
use exitgate::route::{Selector, Words};
use exitgate_bench_shared::tunnel::{self, Kind};

use crate::decisions::Decisions;

/// A head as a browser sends it to its proxy.
const HEAD: &[u8] = b"GET http://shop.example/list?page=2 HTTP/1.1\r\nHost: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate\r\nProxy-Authorization: Basic dXMtc2Vzc2lvbi1jYXJ0NDI6a2V5\r\n\
    Proxy-Connection: keep-alive\r\nConnection: keep-alive\r\nCookie: a=1; b=2\r\n\r\n";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["tunnels", port, echo, count] => numbers([port, echo, count])
            .is_some_and(|[port, echo, count]| (0..count).try_for_each(|_| tunnel(port as u16, echo as u16)).is_ok()),
        ["echo", port] => numbers([port]).is_some_and(|[port]| echo(port as u16).is_ok()),
        [piece, count] => numbers([count]).is_some_and(|[count]| run(piece, count)),
        _ => false,
    };
    if done { ExitCode::SUCCESS } else { ExitCode::from(64) }
}

fn numbers<const N: usize>(words: [&str; N]) -> Option<[u32; N]> {
    let read: Vec<u32> = words.iter().map_while(|word| word.parse().ok()).collect();
    read.try_into().ok()
}

/// Runs a piece; false if there is none of this name.
fn run(piece: &str, count: u32) -> bool {
    let mut each: Box<dyn FnMut()> = match piece {
        "selector" => {
            let words = Words::default();
            Box::new(move || drop(black_box(Selector::parse(black_box("de+fr-session-cart42-strict"), &words))))
        }
        "socks" => Box::new(socks),
        "head" => Box::new(head),
        "decide" => {
            let mut decisions = Decisions::new();
            Box::new(move || decisions.decide("us"))
        }
        "session" => {
            let mut decisions = Decisions::new();
            Box::new(move || decisions.decide("us-session-cart42"))
        }
        _ => return false,
    };
    (0..count).for_each(|_| each());
    true
}

/// A SOCKS5 opening with username and password, in the three parts in which it arrives.
fn socks() {
    const OPENING: &[u8] = b"\x05\x02\x00\x02\x01\x02us\x03key\x05\x01\x00\x03\x0cshop.example\x01\xbb";
    if let Some(mut socks) = Socks::begin(5, true) {
        for end in [4, 11, OPENING.len()] {
            black_box(socks.step(black_box(&OPENING[..end])));
        }
    }
}

fn head() {
    let head = black_box(HEAD);
    let _ = black_box(Scan::default().end(head));
    if let Ok(request) = Request::parse(head) {
        let mut out = Vec::with_capacity(512);
        request.write_for("shop.example", "/list?page=2", &mut out);
        black_box(out);
    }
}

/// Opens one tunnel through the gateway at `port` to the echo, and uses it once.
fn tunnel(port: u16, echo: u16) -> Result<()> {
    let [gateway, target] = [port, echo].map(|port| ([127, 0, 0, 1], port).into());
    let mut stream = tunnel::open(Kind::Socks5, gateway, target).map_err(std::io::Error::other)?;
    tunnel::echo(&mut stream)
}

fn echo(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    loop {
        let mut stream = listener.accept()?.0;
        let mut buffer = [0; 64];
        // A client that leaves ends its own connection only.
        while matches!(stream.read(&mut buffer), Ok(len) if len > 0 && stream.write_all(&buffer[..len]).is_ok()) {}
    }
}
