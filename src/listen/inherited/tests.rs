use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::lifecycle::Lifecycle;
use crate::listen::{Arrival, Listener, Permits, start};

fn parent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn inherit(listener: &TcpListener) -> Inherited {
    Inherited::from_listeners(vec![listener.try_clone().unwrap()]).unwrap()
}

async fn greet(Arrival { mut stream, .. }: Arrival) {
    let _ = stream.write_all(b"!").await;
}

async fn greeted(mut client: TcpStream) {
    let read = tokio::task::spawn_blocking(move || {
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).map(|()| byte)
    });
    assert_eq!(read.await.unwrap().unwrap(), *b"!");
}

#[test]
fn a_socket_belongs_to_its_own_address_only() {
    let (listener, addr) = parent();
    let inherited = inherit(&listener);
    let mut other = addr;
    other.set_ip([127, 0, 0, 2].into());
    assert!(inherited.reserve(other).is_none());
    assert_eq!((inherited.same_port(other), inherited.same_port(addr)), (Some(addr), None));
    let mut other = addr;
    other.set_port(addr.port().wrapping_add(1));
    assert!(inherited.reserve(other).is_none() && inherited.same_port(other).is_none());
    assert_eq!(inherited.reserve(addr).unwrap().unwrap().addr(), addr);
}

#[test]
fn one_socket_has_one_user_at_a_time() {
    let (listener, addr) = parent();
    let inherited = inherit(&listener);
    assert_eq!(inherited.unused(), [addr]);
    let first = inherited.reserve(addr).unwrap().unwrap();
    assert!(inherited.unused().is_empty());
    assert_eq!(inherited.reserve(addr).unwrap().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(first);
    assert_eq!(inherited.unused(), [addr]);
    inherited.reserve(addr).unwrap().unwrap();
}

#[test]
fn a_socket_that_does_not_listen_is_an_error_that_names_it() {
    let (listener, addr) = parent();
    let mut connected = TcpStream::connect(addr).unwrap();
    connected.write_all(b"x").unwrap();
    let accepted = TcpListener::from(std::os::fd::OwnedFd::from(listener.accept().unwrap().0));
    let error = Inherited::from_listeners(vec![listener, accepted]).unwrap_err().to_string();
    assert!(error.contains("socket 2 of 2") && error.contains("Accept=yes"), "{error}");
}

#[tokio::test]
async fn clients_wait_while_an_inherited_port_is_closed_and_are_served_afterwards() {
    let life = Lifecycle::new();
    let (listener, addr) = parent();
    let inherited = inherit(&listener);
    let early = TcpStream::connect(addr).unwrap();
    let open = || {
        let reservation = inherited.reserve(addr).unwrap().unwrap();
        start(reservation, &Permits::new(9), 9, &life.tasks(), greet).unwrap()
    };
    let first = open();
    greeted(early).await;
    assert!(inherited.unused().is_empty(), "a listener uses its socket");
    first.close().await;
    assert_eq!(inherited.unused(), [addr]);
    // The parent has the socket, so nobody is refused, and nobody else can take the port.
    let waiting = TcpStream::connect(addr).unwrap();
    assert_eq!(Listener::bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let _second = open();
    greeted(waiting).await;
}
