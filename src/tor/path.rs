//! Chooses the relays of a circuit: the engine's guard, a middle, the exit that was asked for. Pure.
//!
//! With `EXTENDCIRCUIT` and a given path, tor applies neither its weights nor its rules, so all of them are applied here:
//! no two relays of one family or (on the public network) one subnet, no relay in a position that the directory forbids,
//! and a middle chosen by the consensus' weights.
//!
//! Most middles are possible for most paths. So a middle is drawn by weight, and drawn again if it is not possible. After
//! many draws in vain, which happens in tiny networks, all possible middles are listed and one of them is drawn. Both ways
//! have the same distribution.
//!
//! As in tor, the flag Fast is preferred, and Stable for ports with long-lived streams, but a relay without them is better
//! than no path. Then [`Path::relaxed`] is true.
//!
//! Next: `tor/circuit.rs` builds what is chosen here.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use rand::Rng;

use super::netdir::weight::{self, Position};
use super::netdir::{Flags, Netdir, Relation, Relay, Rules};
use crate::exit::Fingerprint;

#[cfg(test)]
mod tests;

/// Draws before all possible middles are listed. On the public network one draw in ten is not possible, so this many in a
/// row do not happen. A listing costs as much as some hundred draws.
const DRAWS: usize = 32;

/// What a path must satisfy.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    /// The first hop.
    pub entry: Entry,
    /// The last hop.
    pub exit: Fingerprint,
    /// The port that the exit must allow. `None` if any port is fine (a name look-up, a spare).
    pub target: Option<Port>,
    pub hops: Hops,
    /// Relays that must not be the middle, because a circuit through them failed recently.
    pub avoid: &'a HashSet<Fingerprint>,
    pub rules: Rules,
}

/// The first hop. [`super::guard`] chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A relay of the directory.
    Guard(Fingerprint),
    /// A bridge of the user. It is not in the directory, so only the rules on addresses can be applied.
    Bridge {
        id: Fingerprint,
        /// `None` if a pluggable transport hides the address.
        ip: Option<IpAddr>,
    },
}

/// A port of a target and how the exit may reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    /// How the exit may reach the target.
    pub over: IpVersion,
}

/// The first two relays of a path.
pub type Link = [Fingerprint; 2];

/// The protocol between exit and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4, the default for streams.
    V4,
    /// IPv6: the target is an IPv6 address.
    V6,
    /// Whichever the exit prefers.
    Either,
}

/// How long a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// Guard and exit: faster, but without a middle the exit learns the guard, and the two together know client and target.
    Two,
    /// Guard, middle and exit.
    #[default]
    Three,
}

/// A path that keeps every rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    hops: [Fingerprint; 3],
    len: u8,
    relaxed: bool,
}

impl Path {
    /// The two or three relays, guard first.
    pub fn hops(&self) -> &[Fingerprint] {
        &self.hops[..usize::from(self.len)]
    }

    /// The last hop.
    pub fn exit(&self) -> Fingerprint {
        self.hops[usize::from(self.len) - 1]
    }

    /// The middle, if there is one.
    pub fn middle(&self) -> Option<Fingerprint> {
        (self.len == 3).then_some(self.hops[1])
    }

    /// True if the exit or the middle lacks a preferred flag: Fast, or Stable for a port with long-lived streams.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests check which paths lack a preferred flag"))]
    pub fn relaxed(&self) -> bool {
        self.relaxed
    }
}

impl fmt::Display for Path {
    /// The format of `EXTENDCIRCUIT`: `$FINGERPRINT,$FINGERPRINT,$FINGERPRINT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hop) in self.hops().iter().enumerate() {
            write!(f, "{}${hop}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why there is no path. A `Guard…` value may not apply to another engine; an `Exit…` value needs another exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoPath {
    /// The engine's guard is not listed.
    #[error("the guard is not in the directory")]
    GuardUnknown,
    /// The engine's guard is listed as down, or its microdescriptor is not there yet.
    #[error("the guard is not usable")]
    GuardUnusable,
    /// The guard is the exit itself.
    #[error("the guard is the exit")]
    GuardIsExit,
    /// The guard and the exit are of one family.
    #[error("the guard and the exit are of one family")]
    GuardInExitFamily,
    /// The guard and the exit share a subnet.
    #[error("the guard and the exit are in one subnet")]
    GuardInExitSubnet,
    #[error("the exit is not in the directory")]
    ExitUnknown,
    #[error("the exit is not running")]
    ExitNotRunning,
    #[error("the exit is not valid")]
    ExitNotValid,
    /// The authorities say that it tampers with traffic.
    #[error("the exit has the BadExit flag")]
    ExitBad,
    /// The authorities allow it in the middle only.
    #[error("the exit has the MiddleOnly flag")]
    ExitMiddleOnly,
    /// Its microdescriptor is not there yet.
    #[error("the exit has no microdescriptor yet")]
    ExitNoDescriptor,
    #[error("the exit's policy does not allow port {port}")]
    ExitPolicy { port: u16 },
    /// No relay is possible between this guard and this exit.
    #[error("no relay is left for the middle")]
    NoMiddle,
}

/// Ports of long-lived streams: the default of tor's `LongLivedPorts` in 0.4.9.
const LONG_LIVED: [u16; 12] = [21, 22, 706, 1863, 5050, 5190, 5222, 5223, 6523, 6667, 6697, 8300];

/// Whether streams to this port are long-lived, so that every relay of the path should be Stable.
pub fn is_long_lived(port: u16) -> bool {
    LONG_LIVED.contains(&port)
}

/// Chooses a path.
pub fn choose<R: Rng + ?Sized>(dir: &Netdir, want: &Want<'_>, rng: &mut R) -> Result<Path, NoPath> {
    let exit = exit(dir, &want.exit, want.target)?;
    let entry = First::find(dir, want.entry)?;
    match entry.relation(exit, want.rules) {
        Some(Relation::Same) => return Err(NoPath::GuardIsExit),
        Some(Relation::Family) => return Err(NoPath::GuardInExitFamily),
        Some(Relation::Subnet) => return Err(NoPath::GuardInExitSubnet),
        None => {}
    }
    let wishes = wishes(want.target);
    let relaxed = !exit.flags().has(wishes);
    if want.hops == Hops::Two {
        return Ok(Path { hops: [entry.id(), exit.fingerprint(), exit.fingerprint()], len: 2, relaxed });
    }
    let middles = Middles { dir, entry, exit, avoid: want.avoid, rules: want.rules };
    let (middle, as_wished) = match middles.draw(wishes, rng) {
        Some(middle) => (middle, true),
        None => (middles.list(Flags::default(), rng).ok_or(NoPath::NoMiddle)?, false),
    };
    let hops = [entry.id(), middle.fingerprint(), exit.fingerprint()];
    Ok(Path { hops, len: 3, relaxed: relaxed || !as_wished })
}

/// The relay of this fingerprint as an exit, or why it cannot be one for this target.
pub fn exit<'a>(dir: &'a Netdir, id: &Fingerprint, target: Option<Port>) -> Result<Relay<'a>, NoPath> {
    let relay = dir.relay(id).ok_or(NoPath::ExitUnknown)?;
    let has = |flag| relay.flags().has(flag);
    let fault = match target {
        _ if !has(Flags::RUNNING) => NoPath::ExitNotRunning,
        _ if !has(Flags::VALID) => NoPath::ExitNotValid,
        _ if has(Flags::BAD_EXIT) => NoPath::ExitBad,
        _ if has(Flags::MIDDLE_ONLY) => NoPath::ExitMiddleOnly,
        _ if !relay.is_known() => NoPath::ExitNoDescriptor,
        Some(port) if !lets_out(relay, port) => NoPath::ExitPolicy { port: port.number },
        _ => return Ok(relay),
    };
    Err(fault)
}

fn lets_out(relay: Relay<'_>, port: Port) -> bool {
    let (v4, v6) = (|| relay.policy().allows(port.number), || relay.policy_v6().allows(port.number));
    match port.over {
        IpVersion::V4 => v4(),
        IpVersion::V6 => v6(),
        IpVersion::Either => v4() || v6(),
    }
}

fn wishes(target: Option<Port>) -> Flags {
    match target {
        Some(port) if is_long_lived(port.number) => Flags::FAST.and(Flags::STABLE),
        _ => Flags::FAST,
    }
}

/// The first hop, looked up in the directory.
#[derive(Clone, Copy)]
enum First<'a> {
    Listed(Relay<'a>),
    Unlisted { id: Fingerprint, ip: Option<IpAddr> },
}

impl<'a> First<'a> {
    fn find(dir: &'a Netdir, entry: Entry) -> Result<Self, NoPath> {
        match entry {
            Entry::Guard(id) => {
                let relay = dir.relay(&id).ok_or(NoPath::GuardUnknown)?;
                if relay.is_usable() { Ok(Self::Listed(relay)) } else { Err(NoPath::GuardUnusable) }
            }
            Entry::Bridge { id, ip } => Ok(dir.relay(&id).map_or(Self::Unlisted { id, ip }, Self::Listed)),
        }
    }

    fn id(self) -> Fingerprint {
        match self {
            Self::Listed(relay) => relay.fingerprint(),
            Self::Unlisted { id, .. } => id,
        }
    }

    fn relation(self, other: Relay<'_>, rules: Rules) -> Option<Relation> {
        match self {
            Self::Listed(relay) => relay.relation(other, rules),
            Self::Unlisted { ip, .. } => {
                let neighbours = match ip {
                    Some(IpAddr::V4(ip)) => other.same_v4_net(ip),
                    Some(IpAddr::V6(ip)) => other.same_v6_net(ip),
                    None => false,
                };
                (neighbours && rules.distinct_subnets).then_some(Relation::Subnet)
            }
        }
    }
}

/// The possible middles between a guard and an exit.
struct Middles<'a> {
    dir: &'a Netdir,
    entry: First<'a>,
    exit: Relay<'a>,
    avoid: &'a HashSet<Fingerprint>,
    rules: Rules,
}

impl<'a> Middles<'a> {
    fn fits(&self, relay: Relay<'_>, wishes: Flags) -> bool {
        relay.is_usable()
            && relay.flags().has(wishes)
            && !self.avoid.contains(&relay.fingerprint())
            && relay.relation(self.exit, self.rules).is_none()
            && self.entry.relation(relay, self.rules).is_none()
    }

    fn draw<R: Rng + ?Sized>(&self, wishes: Flags, rng: &mut R) -> Option<Relay<'a>> {
        for _ in 0..DRAWS {
            let Some(index) = self.dir.middles().pick(rng) else { break };
            let relay = self.dir.at(index);
            if self.fits(relay, wishes) {
                return Some(relay);
            }
        }
        self.list(wishes, rng)
    }

    fn list<R: Rng + ?Sized>(&self, wishes: Flags, rng: &mut R) -> Option<Relay<'a>> {
        let fit: Vec<Relay<'a>> = self.dir.relays().filter(|relay| self.fits(*relay, wishes)).collect();
        let weights: Vec<u64> = fit.iter().map(|relay| relay.weight(Position::Middle)).collect();
        weight::pick(&weights, rng).map(|place| fit[place])
    }
}
