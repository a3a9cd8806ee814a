//! Chooses the relays of a circuit: the engine's guard, a middle, the exit that was asked for. Pure.
//!
//! `EXTENDCIRCUIT` with a path takes tor at its word that somebody else chose well: tor then applies neither its weights
//! nor its rules, so all of them are applied here. No two relays of one family or (on the public network) one
//! neighbourhood, nobody in a place that the directory keeps it out of, and a middle picked by the consensus' weights.
//!
//! Most middles are fit for most paths, so one is drawn from the running sums that the snapshot brought along, and drawn
//! again if it is unfit. Only when that goes on for too long, as it does in tiny networks, are all fit ones listed and
//! one of them drawn. Both ways draw from the same distribution, so mixing them changes nothing.
//!
//! As in tor, Fast is a wish, and so is Stable for ports on which streams live long: a relay without them is still
//! better than no path. A path that had to do without says so by [`Path::relaxed`].
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

/// Draws before all fit middles are listed. On the public network about one in ten draws is unfit, so that this many in
/// a row do not happen; a listing costs as much as some hundred draws.
const DRAWS: usize = 32;

/// What a path is for.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    /// The first hop.
    pub entry: Entry,
    /// The last hop.
    pub exit: Fingerprint,
    /// The port that the exit must let out; none if any exit will do (a lookup of a name, a circuit in reserve).
    pub target: Option<Port>,
    /// How long the path is.
    pub hops: Hops,
    /// Relays to keep out of the middle, because a circuit through them failed lately.
    pub avoid: &'a HashSet<Fingerprint>,
    /// The network's own rules.
    pub rules: Rules,
}

/// The first hop, which is not chosen here: see [`super::guard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A relay of the directory.
    Guard(Fingerprint),
    /// A bridge of the user's: not in the directory, so that of all rules only those on addresses can be applied.
    Bridge {
        /// Its identity.
        id: Fingerprint,
        /// Its address, if it is known: behind a transport it may not be.
        ip: Option<IpAddr>,
    },
}

/// A port of a target and how the exit may reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub number: u16,
    /// How the exit may reach the target.
    pub over: IpVersion,
}

/// The protocol between exit and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4, which is what streams ask for by default.
    V4,
    /// IPv6: the target is an IPv6 address.
    V6,
    /// Whichever the exit prefers.
    Either,
}

/// How long a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// Guard and exit: faster, and either of them can tell who talks to whom.
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
    /// From the first hop to the last: two or three.
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

    /// True if the exit or the middle lacks a flag that this path would have liked: Fast, or Stable for a port on which
    /// streams live long.
    pub fn relaxed(&self) -> bool {
        self.relaxed
    }
}

impl fmt::Display for Path {
    /// As `EXTENDCIRCUIT` takes it: `$FINGERPRINT,$FINGERPRINT,$FINGERPRINT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hop) in self.hops().iter().enumerate() {
            write!(f, "{}${hop}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why there is no path. What begins with `Guard` may go well on another engine, what begins with `Exit` needs another
/// exit.
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
    /// One operator runs both.
    #[error("the guard and the exit are of one family")]
    GuardInExitFamily,
    /// They are neighbours.
    #[error("the guard and the exit are in one subnet")]
    GuardInExitSubnet,
    /// Not listed.
    #[error("the exit is not in the directory")]
    ExitUnknown,
    /// Listed as down.
    #[error("the exit is not running")]
    ExitNotRunning,
    /// The authorities do not believe it.
    #[error("the exit is not valid")]
    ExitNotValid,
    /// It tampers with what leaves it.
    #[error("the exit has the BadExit flag")]
    ExitBad,
    /// The authorities keep it out of every place but the middle.
    #[error("the exit has the MiddleOnly flag")]
    ExitMiddleOnly,
    /// Its microdescriptor is not there yet.
    #[error("the exit has no microdescriptor yet")]
    ExitNoDescriptor,
    /// Its policy keeps this port in.
    #[error("the exit does not let out port {port}")]
    ExitPolicy {
        /// The port that was asked for.
        port: u16,
    },
    /// Nobody is left that may stand between these two.
    #[error("no relay is left for the middle")]
    NoMiddle,
}

/// Ports on which streams are expected to live long: tor's `LongLivedPorts`, as `GETCONF` of 0.4.9 answers.
const LONG_LIVED: [u16; 12] = [21, 22, 706, 1863, 5050, 5190, 5222, 5223, 6523, 6667, 6697, 8300];

/// Whether streams to this port are expected to live long, so that every relay on the way should be Stable.
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

/// The first hop, looked up.
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

/// Who may stand between a guard and an exit.
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
