//! Closes circuits that do not belong to the pool.
//!
//! An attached tor (one that this gateway did not start) keeps running after our control connection ends, and so do its
//! circuits and the streams on them. A circuit with a running download must continue. But a circuit without streams
//! would stay for a month, because the gateway sets that lifetime. So circuits left over from an earlier control
//! connection are closed once they have no streams. The same check finds any other circuit that the pool of circuits
//! does not know.

use std::collections::HashSet;

use super::Session;
use crate::tor::control::{Command, ControlError};
use crate::tor::event::{CircuitId, Stream};

impl Session<'_> {
    /// Closes circuits that an earlier control connection left behind. Called before the pool has any circuit.
    pub(super) async fn close_leftovers(&self) -> Result<(), ControlError> {
        let streams = self.live.control.streams().await?;
        self.strays_beside(&streams).await?.into_iter().for_each(|stray| self.close(stray));
        Ok(())
    }

    /// Closes circuits that belonged to the pool neither at this check nor at the last one. One check is not enough:
    /// tor's answer to a build may arrive only after the check.
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
        drop(self.live.control.start(&Command::new("CLOSECIRCUIT").arg(circuit))); // the circuit may be gone already
    }
}
