use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::lifecycle::{Ended, Lifecycle};

const PATIENCE: Duration = Duration::from_secs(5);

fn loopback() -> Reservation {
    Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a client of the listener under test")]
async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(addr).await
}

/// Sends one byte, then waits until the connection is cut or the client closes.
async fn greet(Arrival { mut stream, cut, .. }: Arrival) {
    let _ = stream.write_all(b"!").await;
    let _ = cut.race(stream.read_u8()).await;
}

async fn greeted(addr: SocketAddr) -> TcpStream {
    let mut client = connect(addr).await.unwrap();
    let byte = tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("no greeting").unwrap();
    assert_eq!(byte, b'!');
    client
}

#[tokio::test]
async fn a_reservation_holds_its_port_alone_does_not_listen_and_gives_it_back() {
    let reservation = loopback();
    let addr = reservation.addr();
    assert_ne!(addr.port(), 0);
    assert_eq!(connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(Listener::bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(reservation);
    Listener::bind(addr).unwrap();
}

#[tokio::test]
async fn both_address_families_are_served_with_the_peers_address() {
    let life = Lifecycle::new();
    for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let Ok(reservation) = Listener::bind(bind.parse().unwrap()) else { continue }; // a machine without IPv6
        let (seen, mut peers) = tokio::sync::mpsc::unbounded_channel();
        let listener = start(reservation, &Permits::new(9), 9, &life.tasks(), move |arrival| {
            seen.send((arrival.peer, arrival.stream.nodelay().unwrap())).unwrap();
            greet(arrival)
        })
        .unwrap();
        let mut addr = listener.addr();
        if addr.ip().is_unspecified() {
            addr.set_ip([127, 0, 0, 1].into()); // an IPv4 client of an IPv6 socket
        }
        let client = greeted(addr).await;
        assert_eq!(peers.recv().await, Some((client.local_addr().unwrap(), true)), "{bind}");
    }
}

#[tokio::test]
async fn a_closed_port_refuses_at_once_and_its_connections_go_on() {
    let life = Lifecycle::new();
    let listener = start(loopback(), &Permits::new(9), 9, &life.tasks(), greet).unwrap();
    let addr = listener.addr();
    let client = greeted(addr).await;
    listener.close().await;
    assert_eq!(connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let again = start(Listener::bind(addr).unwrap(), &Permits::new(9), 9, &life.tasks(), greet).unwrap();
    assert_eq!((listener.connections.len(), again.connections.len()), (1, 0));
    drop(client);
    assert_eq!(listener.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn draining_cuts_connections_that_do_not_end() {
    let life = Lifecycle::new();
    let listener = start(loopback(), &Permits::new(9), 9, &life.tasks(), greet).unwrap();
    let mut clients = [greeted(listener.addr()).await, greeted(listener.addr()).await];
    assert_eq!(listener.drain(Duration::ZERO).await, 2);
    for client in &mut clients {
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
    tokio::time::timeout(PATIENCE, listener.connections.emptied()).await.unwrap();
}

#[tokio::test]
async fn connections_without_a_permit_wait_in_the_kernel() {
    let life = Lifecycle::new();
    let permits = Permits::new(2);
    let narrow = start(loopback(), &permits, 1, &life.tasks(), greet).unwrap();
    let wide = start(loopback(), &permits, 9, &life.tasks(), greet).unwrap();

    let first = greeted(narrow.addr()).await;
    let mut waiting = connect(narrow.addr()).await.unwrap(); // connected by the kernel, not accepted yet
    let second = greeted(wide.addr()).await;
    assert_eq!(permits.free(), 0);
    let silence = tokio::time::timeout(Duration::from_millis(50), waiting.read_u8()).await;
    assert!(silence.is_err() && narrow.connections.len() == 1, "accepted without a permit");

    drop(first);
    assert_eq!(tokio::time::timeout(PATIENCE, waiting.read_u8()).await.expect("still waiting").unwrap(), b'!');
    drop((waiting, second));
    narrow.drain(PATIENCE).await;
    wide.drain(PATIENCE).await;
    assert_eq!(permits.free(), 2);
}

#[tokio::test]
async fn shutdown_closes_the_port_then_cuts() {
    let life = Lifecycle::new();
    let listener = start(loopback(), &Permits::new(9), 9, &life.tasks(), greet).unwrap();
    let mut client = greeted(listener.addr()).await;
    assert_eq!(life.stop(Duration::from_millis(20), std::future::pending()).await, Ended::Cut(2));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(connect(listener.addr()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// An acceptor that returns prepared connections and errno values, and then nothing more.
struct Scripted {
    script: VecDeque<Result<TcpStream, i32>>,
}

impl Acceptor for Scripted {
    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match self.script.pop_front() {
            None => Poll::Pending,
            Some(Ok(stream)) => Poll::Ready(Ok((stream, ([192, 0, 2, 1], 1).into()))),
            Some(Err(code)) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
        }
    }
}

/// Returns a socket of any kind, because the loop does not use the socket.
async fn some_stream() -> TcpStream {
    let reservation = loopback();
    reservation.socket.listen(1).unwrap();
    connect(reservation.addr()).await.unwrap()
}

#[tokio::test]
async fn errors_pause_the_loop_and_do_not_end_it() {
    let life = Lifecycle::new();
    let mut script = VecDeque::new();
    for code in [libc::ECONNABORTED, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPROTO] {
        script.push_back(Err(code));
        script.push_back(Ok(some_stream().await));
    }
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let accept_loop = AcceptLoop {
        connections: Arc::default(),
        all: Arc::new(Semaphore::new(9)),
        own: Arc::new(Semaphore::new(9)),
        closing: CancellationToken::new(),
        tasks: life.tasks(),
        handler: move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        },
    };
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let all_served = async {
        while served.load(Ordering::Relaxed) < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = accept_loop.accept_until_closed(Scripted { script }) => panic!("the loop ended"),
        () = all_served => {}
    }
    assert!(begun.elapsed() >= 4 * Duration::from_millis(5), "four of the six errors cause a pause");
}
