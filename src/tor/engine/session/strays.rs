//! Circuits that are nobody's.
//!
//! A tor that is not ours to end outlives our connection to it, and so do its circuits and the streams on them. Whoever
//! is in the middle of a download should not notice that we were away; but a circuit without a stream would stay for a
//! month, because that is how long we told tor to keep circuits. So the ones in use are left alone until they no longer
//! are. The same look finds whatever else we lost count of.

use std::collections::HashSet;

use super::Session;
use crate::tor::control::{Command, ControlError};
use crate::tor::event::{CircuitId, Stream};

impl Session<'_> {
    /// Closes circuits that an earlier connection left behind; nothing here is ours yet.
    pub(super) async fn close_leftovers(&self) -> Result<(), ControlError> {
        let streams = self.live.control.streams().await?;
        self.strays_beside(&streams).await?.into_iter().for_each(|stray| self.close(stray));
        Ok(())
    }

    /// Closes circuits that were nobody's at the last look, too: one whose answer is on its way is ours in a moment.
    pub(super) async fn close_strays(&mut self, streams: &[Stream]) -> Result<(), ControlError> {
        let strays = self.strays_beside(streams).await?;
        strays.intersection(&self.strays).for_each(|stray| self.close(*stray));
        self.strays = strays;
        Ok(())
    }

    async fn strays_beside(&self, streams: &[Stream]) -> Result<HashSet<CircuitId>, ControlError> {
        let used: HashSet<_> = streams.iter().filter_map(|stream| stream.circuit).collect();
        let circuits = self.live.control.circuits().await?;
        let built = circuits.into_iter().filter(|circuit| circuit.ours).map(|circuit| circuit.id);
        Ok(built.filter(|id| !used.contains(id) && !self.trials.is_one(*id) && !self.engine.owns(*id)).collect())
    }

    fn close(&self, circuit: CircuitId) {
        drop(self.live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit))); // gone already is as good
    }
}
