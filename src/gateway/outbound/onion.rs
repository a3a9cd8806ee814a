//! Opens streams to onion services.

use super::super::failure::Failure;
use super::super::gate::{ExitFacts, OpenRequest, Opened, Refusal};
use super::Outbound;
use super::admission::Lease;
use super::attempt::Attempt;
use crate::dial;
use crate::exit::ExitId;
use crate::net::{Host, Target};

impl Outbound {
    /// Opens a stream to an onion service. The stream uses no exit, because tor chooses all relays of the circuits.
    pub(super) async fn dial_onion(&self, attempt: Attempt<'_>) -> Result<Opened<Lease>, Refusal> {
        let isolation = attempt.isolation();
        let Attempt { client, wish, request: OpenRequest { target, early, .. }, by, .. } = attempt;
        let meters = self.meters.of(wish.label());
        let dialed = match self.tor() {
            Ok(tor) => {
                let caller = dial::tor::Caller { isolation, own: wish.own_engine() };
                dial::tor::onion(tor, caller, target, early, by).await
            }
            Err(error) => Err(error),
        };
        let (stream, _) =
            dialed.map_err(|error| Refusal { meters: Some(meters.clone()), ..Refusal::from(Failure::from(error)) })?;
        let exit = ExitFacts {
            exit: ExitId::Onion,
            ip: None,
            country: None,
            checked: None,
            moved: None,
            route: wish.scope.clone(),
            rule: wish.rule_text(),
            meters,
        };
        Ok(Opened {
            stream,
            exit,
            idle: self.terms.load().times.idle,
            rate: client.admission().rate(),
            spend: client.spend(ExitId::Onion.source()),
            first_down: Vec::new(),
            sent_early: !early.is_empty(),
            forwarder: None,
            reuse: true,
            keeps_exit: true,
            failed: Vec::new(),
            attempts_left: 0,
            lease: Lease::without_exit(),
        })
    }
}

/// Returns true if the target's name exists only inside the Tor network.
pub(super) fn is_onion(target: &Target) -> bool {
    match &target.host {
        Host::Name(name) => name.ends_with(".onion"),
        Host::Ip(_) => false,
    }
}
