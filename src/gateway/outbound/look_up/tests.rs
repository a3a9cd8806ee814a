//! Tests of the exits that a look-up uses. Two exits are relays of Tor and six are public proxies. Tor is off, so a
//! look-up that would use a relay fails because no engine is ready.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::rotate::Proof;
use super::super::{Parts, RefusalReporter, Terms, Times};
use super::*;
use crate::dial::EngineFault;
use crate::exit::country::Country;
use crate::exit::identity::Identities;
use crate::exit::{Fingerprint, Listing, Moment, Offer, Protocol, PublicId, Source, Through, Verdict};
use crate::gateway::gate::{Caller, Gate};
use crate::gateway::protocol;
use crate::gateway::relay::Idle;
use crate::gateway::testing::listener;
use crate::limit::target::Rules;
use crate::limit::{Amounts, Damping, Limits};
use crate::route::memory::Bounds;
use crate::route::{Memory, Policy, Words};
use crate::state::{Change, Clock, ExitUpdate, Snapshot, State};

const RELAYS: u8 = 2;
const EXITS: u8 = 8;

fn exit(n: u8) -> ExitId {
    if n <= RELAYS {
        return ExitId::Tor(Fingerprint([n; 20]));
    }
    ExitId::Public(PublicId { protocol: Protocol::Socks5, addr: ([192, 0, 2, n], 1080).into() }.into())
}

async fn outbound() -> Outbound {
    let country = Country::parse("US").unwrap();
    let offer = Arc::new(Offer { list: "test".into(), login: None, through: Through::Direct });
    let listing = |n: u8| Listing {
        announced: vec![[192, 0, 2, n].into()],
        country,
        public: (n > RELAYS).then(|| offer.clone()),
        ..Listing::new(exit(n))
    };
    let update = |n: u8| ExitUpdate {
        exit: exit(n),
        update: Box::new(move |known| {
            known.saw([192, 0, 2, n].into(), country, Moment(1));
            known.verdict = Verdict::Good;
        }),
        ban: None,
        writes: Vec::new(),
    };
    let snapshot = Snapshot::new(Words::default(), Policy { pool: 8, ..Policy::default() });
    let (state, _wished) = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None);
    for change in [
        Change::Listed(Source::Tor, (1..=RELAYS).map(listing).collect()),
        Change::Listed(Source::Public, (RELAYS + 1..=EXITS).map(listing).collect()),
        Change::ExitUpdates((1..=EXITS).map(update).collect()),
    ] {
        state.apply(change).await.unwrap();
    }
    let minute = Duration::from_secs(60);
    let damping = Damping { failures: NonZeroU32::MIN, pause: minute };
    Outbound::new(Parts {
        state,
        limits: Limits::new(Vec::new(), Amounts::default(), damping),
        tor: None,
        terms: Terms {
            rules: Rules::default(),
            allow_direct: false,
            times: Times { dial: minute, attempt: minute, idle: Idle::default() },
            public: dial::public::Times { connect: minute, reply: minute },
            max_attempts: NonZeroU32::MIN,
            hedge: 0.0,
            ban_for: minute,
        },
        identities: Identities::default(),
        refusals: RefusalReporter::new(mpsc::channel(1).0),
        verify: Arc::new(|_| Box::pin(async { Proof::Not("not tested".to_owned()) })),
        stopping: watch::channel(false).1,
    })
}

/// Returns why the look-up failed.
async fn look_up(outbound: &Outbound, username: &str) -> Failure {
    let (listener, peer) = (listener(), ([127, 0, 0, 1], 1).into());
    let caller = Caller { listener: &listener, protocol: protocol::Protocol::Socks5, peer, client: peer, username };
    let client = outbound.admit(&caller, None).unwrap();
    let host = Host::Name("shop.example".into());
    outbound.resolve(&caller, &client, Lookup::Address(&host)).await.unwrap_err().failure
}

#[tokio::test]
async fn a_look_up_without_session_uses_a_relay_if_the_username_allows_one() {
    let outbound = outbound().await;
    for _ in 0..20 {
        for username in ["any-source-any", "any-source-any-rotate", "us-source-any", "any"] {
            let failure = look_up(&outbound, username).await;
            assert_eq!(failure, Failure::Engine(EngineFault::NotReady), "{username}");
        }
        assert_eq!(look_up(&outbound, "any-source-public").await, Failure::NoExit(NoExit::NoneMatch));
    }
}

#[tokio::test]
async fn a_look_up_does_not_move_a_session_or_pin() {
    let outbound = outbound().await;
    for n in 0..20 {
        for mode in ["", "-strict"] {
            let username = format!("any-source-any{mode}-session-s{n}");
            let first = look_up(&outbound, &username).await;
            let wish = outbound.parts.state.load().routes.resolve(&username, None).unwrap();
            let bound = outbound.explained("", &wish);
            let exit = super::super::rotate::bound_exit(&bound).unwrap().clone();
            let want = match exit {
                ExitId::Tor(_) => Failure::Engine(EngineFault::NotReady),
                _ => Failure::NoExit(NoExit::NoneMatch),
            };
            assert_eq!((first, look_up(&outbound, &username).await), (want, want), "{username} on {exit}");
            assert_eq!(super::super::rotate::bound_exit(&outbound.explained("", &wish)), Some(&exit), "{username}");
        }
    }
}
