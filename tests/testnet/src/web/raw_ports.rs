//! Ports that do not speak HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;

use super::WebState;
use super::server::Open;
use crate::fake_runtime::{self, Task};

/// Accepts connections and never answers.
pub(super) fn hang(listener: TcpListener) -> Task {
    fake_runtime::accept(listener, |stream, _| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
}

/// Sends every byte back.
pub(super) fn echo(listener: TcpListener, state: &Arc<WebState>) -> Task {
    let state = state.clone();
    fake_runtime::accept(listener, move |mut stream, _| {
        let state = state.clone();
        async move {
            state.accepted.fetch_add(1, Ordering::Relaxed);
            let _open = Open::new(&state);
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await; // an error is a client that left
        }
    })
}

/// Resets every connection.
pub(super) fn reset(listener: TcpListener) -> Task {
    fake_runtime::accept(listener, |stream, _| async move {
        let _ = stream.set_zero_linger(); // makes close send RST; fails only if the socket is closed
    })
}
