//! A tor that somebody else runs.

use std::net::{SocketAddr, TcpListener};

use exitgate::tor::control::{Addr, Auth};
use exitgate::tor::{Attach, Settings};
use exitgate_testnet::{Client, ClientOptions, Wait};

use super::rig::is_alive;
use super::*;

/// Two addresses where nobody listens.
fn free() -> [SocketAddr; 2] {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}

async fn client(bed: &Testbed, [control, socks]: [SocketAddr; 2]) -> Client {
    let lines = vec![format!("ControlPort {control}"), format!("SocksPort {socks}")];
    let options = ClientOptions { lines, wait: Wait::Started, seed: None };
    bed.network.client_with("foreign", options).await.unwrap()
}

#[tokio::test]
async fn a_foreign_tor_is_driven_left_alone_and_found_again() {
    let bed = Testbed::start().await.unwrap();
    let ports = free();
    let tor = client(&bed, ports).await;
    let attach = Attach { control: Addr::Tcp(ports[0]), socks: Addr::Tcp(ports[1]), auth: Auth::Offered };
    let attached = |settings: &mut Settings| {
        (settings.engines, settings.attach, settings.extra) = (0, vec![attach], Vec::new());
    };
    let rig = Rig::start_with(&bed, attached).await;
    let pid = tor.pid().await.unwrap();
    assert_eq!((rig.tor.status().len(), rig.tor.status()[0].attached, rig.tor.status()[0].pid), (1, true, pid));
    for exit in bed.network.exits() {
        assert_eq!(rig.seen_from(way(exit, 1)).await.unwrap().0, exit.outbound.to_string());
    }
    tor.kill().await.unwrap();
    rig.until("its death is noticed", |tor| tor.status()[0].restarts > 0).await;
    drop(tor);
    let tor = client(&bed, ports).await;
    rig.all_ready().await;
    rig.stop().await;
    let pid = tor.pid().await.unwrap().unwrap();
    assert!(is_alive(pid), "it is not ours to end");
}
