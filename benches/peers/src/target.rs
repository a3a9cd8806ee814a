//! The target of all tunnels: an echo, a source and a sink, on one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Offset of the source's port from the base; the echo is at the base itself.
pub const SOURCE: u16 = 1;
/// Offset of the sink's port from the base.
pub const SINK: u16 = 2;
/// How many addresses (127.0.0.1 …) the target has. Between two addresses there are 28,000 ports, and a proxy that opens 10,000
/// tunnels a second would spend its time with the search for a free one.
pub const ADDRESSES: u8 = 4;

/// An address of the port at `offset`; successive numbers get different ones.
pub fn addr(base: u16, offset: u16, number: usize) -> SocketAddr {
    ([127, 0, 0, 1 + (number % usize::from(ADDRESSES)) as u8], base + offset).into()
}

struct Peer {
    stream: TcpStream,
    port: u16,
}

/// Serves until killed.
pub fn serve(base: u16) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let mut ports = Vec::new();
    for offset in 0..=SINK {
        let mut listener = TcpListener::bind(([0, 0, 0, 0], base + offset).into())?;
        poll.registry().register(&mut listener, Token(offset.into()), Interest::READABLE)?;
        ports.push(listener);
    }
    loop {
        match poll.poll(&mut events, None) {
            Err(fault) if fault.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let Token(token) = event.token();
            if let Some(listener) = ports.get(token) {
                while let Ok((mut stream, _)) = listener.accept() {
                    let at = free.pop().unwrap_or_else(|| {
                        peers.push(None);
                        peers.len() - 1
                    });
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(at + ports.len()), interest)?;
                    peers[at] = Some(Peer { stream, port: token as u16 });
                }
                continue;
            }
            let at = token - ports.len();
            let Some(peer) = &mut peers[at] else { continue };
            if !peer.on_event(event, &mut buffer) {
                peers[at] = None;
                free.push(at);
            }
        }
    }
}

impl Peer {
    /// Reads and writes what it can without blocking; false when the connection is over.
    fn on_event(&mut self, event: &Event, buffer: &mut [u8]) -> bool {
        if self.port == SOURCE && event.is_writable() {
            return pump(|| self.stream.write(buffer));
        }
        if !event.is_readable() {
            return true;
        }
        if self.port == SINK {
            return pump(|| self.stream.read(buffer));
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(len) => match self.stream.write(&buffer[..len]) {
                    Ok(sent) if sent == len && len == buffer.len() => {}
                    Ok(sent) if sent == len => return true, // a short read: the next bytes raise another event
                    _ => return false,                      // small messages never fill a socket's buffer
                },
                Err(fault) => return fault.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// Repeats until the socket would block (true) or is over (false).
fn pump(mut once: impl FnMut() -> io::Result<usize>) -> bool {
    loop {
        match once() {
            Ok(0) => return false,
            Ok(_) => {}
            Err(fault) => return fault.kind() == ErrorKind::WouldBlock,
        }
    }
}
