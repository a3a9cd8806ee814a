//! Every fault that can be ordered, and where each of them acts.
//!
//! To add one: give [`Fault`] a variant with a comment (the list of `simtor faults` reads it from here), and an arm in the question below that is asked where it should act: [`Faults::uplink`], [`Faults::relay`],
//! [`Faults::hop`], [`Faults::exit`], [`Faults::target`], [`Faults::directory`] or [`Faults::conduct`]. Nothing else knows
//! faults by name.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::link::Conduct;
use crate::world::end;

mod list;
#[cfg(test)]
mod tests;
mod who;

pub use list::list;
pub(crate) use who::{Network, chance};

/// What can go wrong. Relays are named as `who`: see `fault/who.rs`. A `share` is a part from 0 to 1 of what is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Nothing passes between the client and the network, and nobody says so.
    UplinkCut,
    /// As `uplink_cut`, and new connections fail at once: there is no route.
    UplinkUnreachable,
    /// The uplink carries so little, and each way takes so much longer.
    UplinkSlow {
        /// Bytes a second of all engines together.
        bytes_per_second: u64,
        /// Milliseconds that are added to each round trip.
        #[serde(default)]
        delay_ms: u64,
    },
    /// The clock of the client is ahead by so many seconds; behind, if negative.
    ClockOff {
        /// Seconds.
        seconds: i64,
    },
    /// Relays are down: connections to them fail and those that exist end.
    RelayDown {
        /// Which.
        who: String,
        /// Of those.
        #[serde(default = "all")]
        share: f64,
    },
    /// Relays keep their connections and answer nothing.
    RelayHang {
        /// Which.
        who: String,
        /// Of those.
        #[serde(default = "all")]
        share: f64,
    },
    /// Relays refuse every new circuit with DESTROY.
    RelayRefuses {
        /// Which.
        who: String,
        /// Of those.
        #[serde(default = "all")]
        share: f64,
        /// tor's word for the reason.
        #[serde(default = "resource_limit")]
        reason: String,
    },
    /// Circuits fail at this hop, whoever stands there.
    HopFails {
        /// 1, 2 or 3.
        hop: usize,
        /// Of all attempts.
        #[serde(default = "all")]
        share: f64,
        /// tor's word for the reason.
        #[serde(default = "channel_closed")]
        reason: String,
    },
    /// Circuits hang at this hop, whoever stands there.
    HopHangs {
        /// 1, 2 or 3.
        hop: usize,
        /// Of all attempts.
        #[serde(default = "all")]
        share: f64,
    },
    /// Exits carry so little.
    ExitSlow {
        /// Which.
        who: String,
        /// Of those.
        #[serde(default = "all")]
        share: f64,
        /// Bytes a second of all streams together.
        bytes_per_second: u64,
    },
    /// Exits are out of sockets: streams end with RESOURCELIMIT.
    ExitFull {
        /// Which.
        who: String,
        /// Of those.
        #[serde(default = "all")]
        share: f64,
    },
    /// Exits leave from another address than the directory says.
    ExitAddress {
        /// Which.
        who: String,
        /// An address in 127.0.0.0/8.
        address: Ipv4Addr,
    },
    /// Exits let out other ports than the directory says.
    ExitPolicy {
        /// Which.
        who: String,
        /// Ports that they refuse.
        reject: Vec<u16>,
    },
    /// Streams that begin end with this reason, by its number: 0 is none, 12 a reset, 250 one that nobody knows.
    StreamEnds {
        /// Through which relays.
        who: String,
        /// Of all streams through them.
        #[serde(default = "all")]
        share: f64,
        /// The number.
        reason: u8,
    },
    /// Nobody answers at a target.
    TargetDrops {
        /// A name, an address, or either with a port.
        to: String,
    },
    /// Engines' control ports answer so much later.
    ControlSlow {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// Engines close their control connections, now. An engine that its controller owns ends with that.
    ControlCut {
        /// Which engine, as the world counts those that ever started, from 0; all without it.
        #[serde(default)]
        engine: Option<u32>,
    },
    /// Engines end as a process that crashes does, now.
    EngineCrash {
        /// Which engine, as the world counts those that ever started, from 0; all without it.
        #[serde(default)]
        engine: Option<u32>,
    },
    /// The directory lacks microdescriptors.
    MicrodescsMissing {
        /// Of all relays.
        share: f64,
    },
    /// The consensus recommends these versions to clients, with commas between them.
    VersionsRecommended {
        /// For example `0.4.9.13,0.4.9.14`.
        versions: String,
    },
    /// Engines that start are of this version.
    TorVersion {
        /// For example `0.4.9.14`.
        version: String,
    },
}

fn all() -> f64 {
    1.0
}

fn resource_limit() -> String {
    "RESOURCELIMIT".to_owned()
}

fn channel_closed() -> String {
    "CHANNEL_CLOSED".to_owned()
}

/// A fault, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// Seconds until it ends by itself, of the clock on the wall.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<f64>,
}

/// A fault in force.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) fault: Fault,
    pub(crate) until: Option<Instant>,
    /// The relays that it is about, chosen when it was ordered.
    relays: HashSet<usize>,
}

/// The faults in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    running: Vec<Running>,
    next: u64,
}

/// What the uplink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uplink {
    Works,
    Slow { bytes_per_second: u64, delay_ms: u64 },
    Silent,
    Unreachable,
}

/// What a relay, or a hop of a circuit, does when it is asked for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Works,
    Down,
    Hangs,
    Refuses(String),
}

/// How an exit treats the streams that begin at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExitManner {
    pub(crate) ends: Option<u8>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) refused_ports: Vec<u16>,
}

impl Faults {
    /// Begins a fault; its number.
    pub(crate) fn begin(&mut self, order: Order, network: &Network<'_>) -> u64 {
        self.next += 1;
        let relays = match named(&order.fault) {
            Some((who, share)) => network.relays(who, share, self.next),
            None => HashSet::new(),
        };
        if let Fault::ControlCut { .. } | Fault::EngineCrash { .. } = order.fault {
            return self.next; // it has happened by now
        }
        let until = order.lasts.map(|lasts| Instant::now() + std::time::Duration::from_secs_f64(lasts.max(0.0)));
        self.running.push(Running { id: self.next, fault: order.fault, until, relays });
        self.next
    }

    /// Ends one fault or all; how many that were.
    pub(crate) fn end(&mut self, id: Option<u64>) -> usize {
        let before = self.running.len();
        self.running.retain(|running| id.is_some_and(|id| running.id != id));
        before - self.running.len()
    }

    /// Ends those whose time is over; true if there was one.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let before = self.running.len();
        self.running.retain(|running| running.until.is_none_or(|until| until > now));
        before != self.running.len()
    }

    pub(crate) fn running(&self) -> &[Running] {
        &self.running
    }

    fn of(&self, relay: usize) -> impl Iterator<Item = &Fault> {
        self.running.iter().filter(move |running| running.relays.contains(&relay)).map(|running| &running.fault)
    }

    fn all(&self) -> impl Iterator<Item = &Fault> {
        self.running.iter().map(|running| &running.fault)
    }

    /// Asked whenever anything passes between the client and its guards.
    pub(crate) fn uplink(&self) -> Uplink {
        let of = |fault: &Fault| match fault {
            Fault::UplinkCut => Some(Uplink::Silent),
            Fault::UplinkUnreachable => Some(Uplink::Unreachable),
            Fault::UplinkSlow { bytes_per_second, delay_ms } => {
                Some(Uplink::Slow { bytes_per_second: *bytes_per_second, delay_ms: *delay_ms })
            }
            _ => None,
        };
        self.all().find_map(of).unwrap_or(Uplink::Works)
    }

    /// Asked of a relay whenever a connection, a circuit or a stream reaches it, and of its own accord when faults change.
    pub(crate) fn relay(&self, relay: usize) -> Manner {
        let of = |fault: &Fault| match fault {
            Fault::RelayDown { .. } => Some(Manner::Down),
            Fault::RelayHang { .. } => Some(Manner::Hangs),
            Fault::RelayRefuses { reason, .. } => Some(Manner::Refuses(reason.clone())),
            _ => None,
        };
        self.of(relay).find_map(of).unwrap_or(Manner::Works)
    }

    /// Asked when a circuit is to grow to its `hop`th relay, counted from 1; `draw` is a number from 0 to 1.
    pub(crate) fn hop(&self, hop: usize, draw: f64) -> Manner {
        let of = |fault: &Fault| match fault {
            Fault::HopFails { hop: at, share, reason } if *at == hop && draw < *share => {
                Some(Manner::Refuses(reason.clone()))
            }
            Fault::HopHangs { hop: at, share } if *at == hop && draw < *share => Some(Manner::Hangs),
            _ => None,
        };
        self.all().find_map(of).unwrap_or(Manner::Works)
    }

    /// Asked when a stream begins at an exit; `draw` is a number from 0 to 1.
    pub(crate) fn exit(&self, relay: usize, draw: f64) -> ExitManner {
        let mut manner = ExitManner::default();
        for fault in self.of(relay) {
            match fault {
                Fault::ExitSlow { bytes_per_second, .. } => manner.bytes_per_second = Some(*bytes_per_second),
                Fault::ExitFull { .. } => manner.ends = Some(end::RESOURCE_LIMIT),
                Fault::ExitAddress { address, .. } => manner.address = Some(*address),
                Fault::ExitPolicy { reject, .. } => manner.refused_ports.clone_from(reject),
                Fault::StreamEnds { share, reason, .. } if draw < *share => manner.ends = Some(*reason),
                _ => {}
            }
        }
        manner
    }

    /// Asked when an exit is about to connect; true if nobody answers there.
    pub(crate) fn target(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        let ip = ip.map(|ip| ip.to_string());
        self.all().any(|fault| match fault {
            Fault::TargetDrops { to } => {
                let at = |name: &str| to == name || *to == format!("{name}:{port}");
                at(host) || ip.as_deref().is_some_and(at)
            }
            _ => false,
        })
    }

    /// Asked when the directory is served: the part of microdescriptors that are missing, and the versions recommended.
    pub(crate) fn directory(&self) -> (f64, Option<&str>) {
        let (mut missing, mut versions) = (0.0, None);
        for fault in self.all() {
            match fault {
                Fault::MicrodescsMissing { share } => missing = *share,
                Fault::VersionsRecommended { versions: list } => versions = Some(list.as_str()),
                _ => {}
            }
        }
        (missing, versions)
    }

    /// Asked when an engine starts, and of its own accord when faults change.
    pub(crate) fn conduct(&self, version: &str) -> Conduct {
        let mut conduct = Conduct { version: version.to_owned(), ..Conduct::default() };
        for fault in self.all() {
            match fault {
                Fault::ControlSlow { delay_ms } => conduct.control_delay_ms = *delay_ms,
                Fault::ClockOff { seconds } => conduct.clock_off = *seconds,
                Fault::TorVersion { version } => conduct.version.clone_from(version),
                _ => {}
            }
        }
        conduct
    }
}

/// The relays that a fault is about, and which part of them. A share of streams is drawn for each stream instead.
fn named(fault: &Fault) -> Option<(&str, f64)> {
    match fault {
        Fault::RelayDown { who, share }
        | Fault::RelayHang { who, share }
        | Fault::RelayRefuses { who, share, .. }
        | Fault::ExitSlow { who, share, .. }
        | Fault::ExitFull { who, share } => Some((who, *share)),
        Fault::ExitAddress { who, .. } | Fault::ExitPolicy { who, .. } | Fault::StreamEnds { who, .. } => {
            Some((who, 1.0))
        }
        _ => None,
    }
}
