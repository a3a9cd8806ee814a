//! Ports that do not speak HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;

use super::Site;
use super::server::Open;
use crate::stage::{self, Task};

/// Takes connections and holds them without a word.
pub(super) fn hang(listener: TcpListener) -> Task {
    stage::accept(listener, |stream, _| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
}

/// Sends every byte back.
pub(super) fn echo(listener: TcpListener, site: &Arc<Site>) -> Task {
    let site = site.clone();
    stage::accept(listener, move |mut stream, _| {
        let site = site.clone();
        async move {
            site.accepted.fetch_add(1, Ordering::Relaxed);
            let _open = Open::new(&site);
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await; // a client that leaves in the middle is its business
        }
    })
}

/// Resets every connection.
pub(super) fn reset(listener: TcpListener) -> Task {
    stage::accept(listener, |stream, _| async move {
        let _ = stream.set_zero_linger(); // closing then sends RST; fails only on a dead socket
    })
}
