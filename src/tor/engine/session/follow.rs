//! The part of a session that follows the directory of relays: this part asks for a new directory, and applies it to
//! the session.

use std::sync::Arc;

use super::Session;
use crate::tor::directory::{self, From};
use crate::tor::engine::Engine;

impl Session<'_> {
    fn directory_place(&self) -> From {
        match self.engine.attach {
            None => From::Folder(self.folder.path().to_owned()),
            Some(_) => From::Control(self.live.control.clone()),
        }
    }

    pub(super) async fn refresh_directory(&self) {
        refresh(self.engine.clone(), self.directory_place()).await;
    }

    /// Starts a task that looks for a new directory. The engine's loop must not wait for the disk.
    pub(super) fn look_for_directory(&self) {
        self.engine.shared.tasks.spawn("directory", refresh(self.engine.clone(), self.directory_place()));
    }

    /// Applies a new directory: its limits, and the choice of another guard if it no longer lists the guard in use.
    pub(super) async fn follow_directory(&mut self) {
        self.engine.act(|circuits, _| circuits.pool.set_limits(self.engine.shared.limits()));
        self.engine.shared.warn_of_version(self.live.version);
        self.find_entry().await;
    }
}

async fn refresh(engine: Arc<Engine>, from: From) {
    if let Err(why) = directory::refresh(&engine.shared.directory, &engine.shared.reads, &from).await {
        tracing::warn!(engine = engine.id.0, "the directory could not be read again: {why}");
    }
}
