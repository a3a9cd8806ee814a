//! Chooses the relays of a circuit: the engine's guard, a middle relay, and the requested exit. Pure: no I/O.
//!
//! If the command `EXTENDCIRCUIT` contains a complete path, tor applies neither its weights nor its rules. So this
//! module applies them. No two relays of a path are of one family or, on the public network, in one subnet. No relay is
//! in a position that the directory forbids. The middle relay is chosen by the weights of the consensus.
//!
//! Most relays are possible middles for most paths. So a relay is drawn by weight, and if it is not possible, another
//! one is drawn. If many draws fail, which happens in tiny networks, all possible middles are listed and one of them is
//! drawn. Both methods choose each middle with the same probability.
//!
//! As in tor, relays with the flag Fast are preferred, and relays with the flag Stable for ports with streams that last
//! for hours. But a relay without these flags is better than no path. Then [`Path::relaxed`] is true.
//!
//! Next: `tor/circuit.rs` builds circuits over the chosen paths.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use rand::Rng;

use super::netdir::weight::{self, Position};
use super::netdir::{Flags, Netdir, Relation, Relay, Rules};
use crate::exit::Fingerprint;

#[cfg(test)]
mod tests;

/// The number of random draws of a middle relay before all possible middle relays are listed. On the public network one
/// draw in ten fails, so this many failures in a row do not happen. A listing costs as much time as some hundred draws.
const DRAWS: usize = 32;

/// The requirements for a path.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    /// The first hop of the path.
    pub entry: Entry,
    /// The last hop of the path.
    pub exit: Fingerprint,
    /// The port that the exit's policy must allow. `None` if any port is fine, as for a name look-up or a spare
    /// circuit.
    pub target: Option<Port>,
    pub hops: Hops,
    /// Relays that must not be the middle relay of the path, because a circuit through them failed recently.
    pub avoid: &'a HashSet<Fingerprint>,
    pub rules: Rules,
}

/// The first hop of a path, which [`super::guard`] chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A guard that is listed in the directory.
    Guard(Fingerprint),
    /// A bridge that the user configured. The directory does not list bridges, so only the rules on addresses can be
    /// applied.
    Bridge {
        id: Fingerprint,
        /// The bridge's address. `None` if a pluggable transport hides the address.
        ip: Option<IpAddr>,
    },
}

impl Entry {
    /// Returns the fingerprint of the first hop.
    pub fn id(self) -> Fingerprint {
        match self {
            Self::Guard(id) | Self::Bridge { id, .. } => id,
        }
    }
}

/// The port of a target, and the version of IP between exit and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    /// The version of IP between exit and target.
    pub over: IpVersion,
}

/// The first two relays of a path.
pub type Link = [Fingerprint; 2];

/// The protocol between exit and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4, which is the default for connections to targets.
    V4,
    /// IPv6, because the target is an IPv6 address.
    V6,
    /// The version that the exit prefers.
    Either,
}

/// The number of relays in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// Guard and exit. Such a path is faster. But without a middle relay the exit learns the guard, and both together
    /// know the client and the target.
    Two,
    /// Guard, middle and exit.
    #[default]
    Three,
}

/// A path that satisfies every rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    hops: [Fingerprint; 3],
    len: u8,
    relaxed: bool,
}

impl Path {
    /// Returns the two or three relays of the path, the guard first.
    pub fn hops(&self) -> &[Fingerprint] {
        &self.hops[..usize::from(self.len)]
    }

    /// Returns the last relay of the path.
    pub fn exit(&self) -> Fingerprint {
        self.hops[usize::from(self.len) - 1]
    }

    /// Returns the middle relay of the path. Returns `None` if the path has two relays.
    pub fn middle(&self) -> Option<Fingerprint> {
        (self.len == 3).then_some(self.hops[1])
    }

    /// Returns true if the exit or the middle lacks a preferred flag: Fast, or Stable for a port whose streams last for
    /// hours.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests check which paths lack a preferred flag"))]
    pub fn relaxed(&self) -> bool {
        self.relaxed
    }
}

impl fmt::Display for Path {
    /// Writes the path in the format of `EXTENDCIRCUIT`: `$FINGERPRINT,$FINGERPRINT,$FINGERPRINT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hop) in self.hops().iter().enumerate() {
            write!(f, "{}${hop}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why no path could be chosen. After a value `Guard…`, another engine may find a path. After a value `Exit…`, the
/// request needs another exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoPath {
    /// The engine's guard is not listed in the directory.
    #[error("the guard is not in the directory")]
    GuardUnknown,
    /// The engine's guard is listed as down, or its microdescriptor is missing.
    #[error("the guard is not usable")]
    GuardUnusable,
    /// The guard and the exit are the same relay.
    #[error("the guard is the exit")]
    GuardIsExit,
    /// The guard and the exit belong to one family.
    #[error("the guard and the exit are of one family")]
    GuardInExitFamily,
    /// The guard and the exit are in one subnet.
    #[error("the guard and the exit are in one subnet")]
    GuardInExitSubnet,
    #[error("the exit is not in the directory")]
    ExitUnknown,
    #[error("the exit is not running")]
    ExitNotRunning,
    #[error("the exit is not valid")]
    ExitNotValid,
    /// The authorities report that this exit tampers with traffic.
    #[error("the exit has the BadExit flag")]
    ExitBad,
    /// The authorities allow this relay only in the middle of a path.
    #[error("the exit has the MiddleOnly flag")]
    ExitMiddleOnly,
    /// The exit's microdescriptor is missing.
    #[error("the exit has no microdescriptor yet")]
    ExitNoDescriptor,
    #[error("the exit's policy does not allow port {port}")]
    ExitPolicy { port: u16 },
    /// No relay can be the middle between this guard and this exit.
    #[error("no relay is left for the middle")]
    NoMiddle,
}

/// Ports whose streams last for hours. These are the defaults of tor's option `LongLivedPorts` in version 0.4.9.
const LONG_LIVED: [u16; 12] = [21, 22, 706, 1863, 5050, 5190, 5222, 5223, 6523, 6667, 6697, 8300];

/// Returns true if streams to this port last for hours. Every relay of their path should then have the flag Stable.
pub fn is_long_lived(port: u16) -> bool {
    LONG_LIVED.contains(&port)
}

/// Chooses a path that satisfies `want`.
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

/// Returns the relay with this fingerprint if it can be the exit for this target, or the reason why not.
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

/// The first hop of a path, with its entry in the directory.
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

/// The relays that can be the middle between a guard and an exit.
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
