//! Makes a network from its plan: files, keys, a vote, and processes.

use std::fs;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::time::Instant;

use super::{Network, NetworkState, START_DEADLINE, Start, boot, dns_address, keys, make_home, write_program};
use crate::layout::{self, Options, Relay};
use crate::process::Processes;
use crate::sandbox::Sandbox;
use crate::shim::Shim;
use crate::torrc::{self, Shared};
use crate::{dates, snapshot};

/// What a network will be made from.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) shim: Shim,
    pub(super) relays: Vec<Relay>,
    pub(super) options: Options,
    pub(super) begun: Instant,
}

impl Plan {
    fn deadline(&self) -> Instant {
        self.begun + START_DEADLINE
    }

    pub(super) async fn warm(&self, index: snapshot::Index) -> anyhow::Result<Network> {
        let state = self.write_files(index.authority, &index.relays)?;
        boot::spawn_all(&state, &index.relays, self.deadline()).await?;
        boot::consensus(&index.relays, self.deadline()).await?;
        boot::informed(&state, &index.relays, self.deadline()).await?;
        Ok(self.network(state, index.relays, Start::Warm))
    }

    pub(super) async fn cold(&self) -> anyhow::Result<(Network, snapshot::Index)> {
        let mut relays = self.relays.clone();
        let authority = keys::make(self.sandbox.folder(), boot::authority(&relays)?, &self.shim).await?;
        let state = self.write_files(authority.clone(), &relays)?;
        boot::spawn_all(&state, &relays, self.deadline()).await?;
        boot::vote(&state, &relays, &self.options, self.deadline()).await?;
        for relay in &mut relays {
            let fingerprint = keys::written_fingerprint(&state.home(&relay.name), &relay.name);
            relay.fingerprint = fingerprint.with_context(|| format!("{} has no fingerprint", relay.name))?;
        }
        let valid_until = boot::consensus(&relays, self.deadline()).await?;
        boot::informed(&state, &relays, self.deadline()).await?;
        let index = snapshot::Index { relays: relays.clone(), authority, valid_until };
        Ok((self.network(state, relays, Start::Cold), index))
    }

    /// Writes every file that the processes need.
    fn write_files(&self, authority: String, relays: &[Relay]) -> anyhow::Result<NetworkState> {
        let folder = self.sandbox.folder();
        fs::write(folder.join("geoip"), layout::geoip(relays, &self.sandbox))?;
        fs::write(folder.join("geoip6"), "# none\n")?;
        fs::write(folder.join("resolv.conf"), format!("nameserver {}\n", dns_address(&self.sandbox)))?;
        write_program(&folder.join("tor"), &self.shim.wrapper())?;
        // The first vote by schedule is half an interval away, so that the only vote is the one that is ordered.
        let vote_offset = (dates::now() + torrc::FIRST_VOTE_INTERVAL / 2) % torrc::FIRST_VOTE_INTERVAL;
        let shared = Shared { folder, options: &self.options, relays, authority: &authority, vote_offset };
        for relay in relays {
            let home = make_home(folder, &relay.name)?;
            fs::write(home.join("torrc"), torrc::relay(&shared, relay))?;
            if !home.join("state").exists() {
                fs::write(home.join("state"), torrc::state(relay.role, dates::now()))?;
            }
        }
        let processes = Processes::new(self.sandbox.hold())?;
        let (sandbox, shim) = (self.sandbox.clone(), Some(self.shim.clone()));
        Ok(NetworkState { processes, sandbox, shim, authority, simulated: None })
    }

    /// Removes the files of a failed start.
    pub(super) fn remove_files(&self) -> anyhow::Result<()> {
        for relay in &self.relays {
            fs::remove_dir_all(self.sandbox.folder().join(&relay.name))?;
        }
        Ok(())
    }

    fn network(&self, state: NetworkState, relays: Vec<Relay>, start: Start) -> Network {
        Network { relays, options: self.options.clone(), start, took: self.begun.elapsed(), state: Arc::new(state) }
    }
}
