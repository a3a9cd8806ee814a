//! Onion services that this engine offers: enough of them that others can be asked for one.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::engine::Engine;
use super::event::Kind;
use crate::link::Hello;

/// One service of the configuration.
struct Service {
    folder: String,
    port: u16,
    target: String,
}

/// Offers the services of the configuration.
pub(super) async fn serve(engine: Arc<Engine>) {
    let torrc = engine.torrc();
    let folders = torrc.all("HiddenServiceDir");
    let ports = torrc.all("HiddenServicePort");
    let services: Vec<Service> = folders.zip(ports).filter_map(|(folder, line)| read(folder, line)).collect();
    for service in services {
        tokio::spawn(offer(engine.clone(), service));
    }
}

fn read(folder: &str, line: &str) -> Option<Service> {
    let mut words = line.split_whitespace();
    let port = words.next()?.parse().ok()?;
    let target = words.next().map_or_else(|| format!("127.0.0.1:{port}"), str::to_owned);
    Some(Service { folder: folder.to_owned(), port, target })
}

async fn offer(engine: Arc<Engine>, service: Service) -> Option<()> {
    let host = name();
    std::fs::create_dir_all(&service.folder).ok()?;
    std::fs::write(format!("{}/hostname", service.folder), format!("{host}\n")).ok()?;
    let mut world = UnixStream::connect(&engine.world).await.ok()?;
    let hello = Hello::Onion { host: host.clone(), port: service.port, target: service.target };
    let mut line = serde_json::to_vec(&hello).ok()?;
    line.push(b'\n');
    world.write_all(&line).await.ok()?;
    world.read_u8().await.ok()?; // it is known now
    let address = host.trim_end_matches(".onion").to_owned();
    loop {
        // Whoever waits for the upload may only now be listening; a real service uploads again and again, too.
        engine.with(|state| {
            state.event(Kind::HsDesc, format!("HS_DESC UPLOAD {address} UNKNOWN $0~world"));
            state.event(Kind::HsDesc, format!("HS_DESC UPLOADED {address} UNKNOWN $0~world"));
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// An address of version 3 whose key nobody has.
fn name() -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digits: String = (0..55).map(|_| DIGITS[usize::from(rand::random::<u8>() % 32)] as char).collect();
    format!("{digits}d.onion")
}
