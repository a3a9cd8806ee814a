//! SOCKS4, 4a and 5 without I/O: bytes in, one [`Step`] out.
//!
//! [`Socks`] always gets the whole opening from its first byte on, and returns what to do next: read more, send two bytes,
//! check credentials, or carry out a [`Command`]. It stores positions in those bytes and no copy, so it allocates nothing,
//! and a length that a client claims reserves no memory. A client may send its opening byte by byte, or all of it and the
//! first bytes of the tunnel in one packet: the steps are the same (a property test checks that).
//!
//! Tor's extensions RESOLVE (0xF0) and RESOLVE_PTR (0xF1) are supported, as in tor's `socks-extensions.txt`. BIND and UDP
//! ASSOCIATE are refused with "command not supported". SOCKS4 has no password, so its userid may hold one behind a `:`, which
//! no username contains.
//!
//! A success reply names the exit: BND.ADDR is the address "that the server used to connect" (RFC 1928, section 6), which is
//! the exit's observed IP. SOCKS has no other place for it.
//!
//! Next: [`super::connection`] drives this; [`super::failure`] has the reply codes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, Range};

use super::failure::{ClientFault, Failure};
use crate::net::{Host, Target};

/// The longest opening that is not refused: SOCKS5's greeting (2 + 255), credentials (3 + 255 + 255) and request
/// (4 + 256 + 2). A SOCKS4 opening is held to less by `TEXT_MAX`.
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "fuzz/src/socks.rs checks it"))]
pub const OPENING_MAX: usize = 257 + 513 + 262;

/// The longest userid or 4a name, without its NUL: as long as SOCKS5's username and password together.
const TEXT_MAX: usize = 510;

const NO_AUTH: u8 = 0x00;
const USER_PASSWORD: u8 = 0x02;
const CONNECT: u8 = 0x01;
const RESOLVE: u8 = 0xF0;
const RESOLVE_PTR: u8 = 0xF1;

/// "No acceptable methods": the client must close.
pub const NO_METHOD: [u8; 2] = [5, 0xFF];
/// RFC 1929: the credentials are accepted.
pub const AUTH_ACCEPTED: [u8; 2] = [1, 0];
/// RFC 1929: they are rejected; the server then closes.
pub const AUTH_REJECTED: [u8; 2] = [1, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or 4a.
    V4,
    /// SOCKS5.
    V5,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A tunnel to the target.
    Connect(Target),
    /// The address of a name.
    Resolve(Host),
    /// The name of an address.
    ResolvePtr(IpAddr),
}

/// A client's username and password, as bytes of the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'b> {
    /// Empty if none was sent.
    pub username: &'b [u8],
    /// `None` if none was sent, or an empty one.
    pub password: Option<&'b [u8]>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes, then call [`Socks::step`] again with all of them.
    More,
    /// Send these two bytes, then call [`Socks::step`] again.
    Send([u8; 2]),
    /// SOCKS5 only: check [`Socks::credentials`], send [`AUTH_ACCEPTED`] and go on, or send [`AUTH_REJECTED`] and close.
    Check,
    /// Carry this out for [`Socks::credentials`], unless they have been checked already.
    Do {
        command: Command,
        /// The length of the opening; the bytes behind it belong to the tunnel.
        used: usize,
    },
    /// Reply with this failure and close. Before a SOCKS5 request there is no reply, and the failure is not sent.
    Refuse(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    V4,
    Greeting,
    Credentials,
    Request,
}

/// The parser of one opening.
#[derive(Clone, Debug)]
pub struct Socks {
    state: State,
    demands_login: bool,
    at: usize,
    username: Range<usize>,
    password: Range<usize>,
}

/// A part of the opening; `None` while it is incomplete.
type Part<T> = Result<Option<T>, Failure>;

impl Socks {
    /// Begins an opening whose first byte is 4 or 5; anything else is not SOCKS.
    pub fn begin(first: u8, demands_login: bool) -> Option<Self> {
        let state = match first {
            4 => State::V4,
            5 => State::Greeting,
            _ => return None,
        };
        Some(Self { state, demands_login, at: 0, username: 0..0, password: 0..0 })
    }

    pub fn version(&self) -> Version {
        if self.state == State::V4 { Version::V4 } else { Version::V5 }
    }

    /// True once a failure can be sent to the client: SOCKS5 has no reply before the request.
    pub fn can_refuse(&self) -> bool {
        matches!(self.state, State::V4 | State::Request)
    }

    /// The client's credentials, after the step [`Step::Check`] or [`Step::Do`]. `opening` as it was then, or longer.
    pub fn credentials<'b>(&self, opening: &'b [u8]) -> Credentials<'b> {
        let password = &opening[self.password.clone()];
        Credentials { username: &opening[self.username.clone()], password: (!password.is_empty()).then_some(password) }
    }

    /// The next step. `opening` is every byte that the client has sent so far, from the first on.
    pub fn step(&mut self, opening: &[u8]) -> Step {
        let step = match self.state {
            State::V4 => self.v4(opening),
            State::Greeting => self.greeting(opening),
            State::Credentials => self.read_credentials(opening),
            State::Request => self.request(opening),
        };
        match step {
            Ok(Some(step)) => step,
            Ok(None) => Step::More,
            Err(failure) => Step::Refuse(failure),
        }
    }

    /// `05 n methods…`. Username and password are chosen where they are offered, because the username selects the exit.
    fn greeting(&mut self, opening: &[u8]) -> Part<Step> {
        let Some(methods) = counted(opening, 1) else { return Ok(None) };
        let offered = |method| opening[methods.clone()].contains(&method);
        let (choice, next) = if offered(USER_PASSWORD) {
            (USER_PASSWORD, State::Credentials)
        } else if offered(NO_AUTH) && !self.demands_login {
            (NO_AUTH, State::Request)
        } else {
            return Ok(Some(Step::Send(NO_METHOD)));
        };
        (self.state, self.at) = (next, methods.end);
        Ok(Some(Step::Send([5, choice])))
    }

    /// `01 n user… n password…`. Some clients offer this method and send two empty texts: no username and no key.
    fn read_credentials(&mut self, opening: &[u8]) -> Part<Step> {
        if opening.get(self.at).is_some_and(|&version| version != 1) {
            return Err(Failure::Client(ClientFault::Garbage));
        }
        let Some(username) = counted(opening, self.at + 1) else { return Ok(None) };
        let Some(password) = counted(opening, username.end) else { return Ok(None) };
        (self.state, self.at) = (State::Request, password.end);
        (self.username, self.password) = (username, password);
        Ok(Some(Step::Check))
    }

    /// `05 command 00 type address port`.
    fn request(&self, opening: &[u8]) -> Part<Step> {
        let bytes = &opening[self.at..];
        if bytes.first().is_some_and(|&version| version != 5) {
            return Err(Failure::Client(ClientFault::Garbage));
        }
        let (Some(&command), Some(&kind)) = (bytes.get(1), bytes.get(3)) else { return Ok(None) };
        let end = match kind {
            1 => 8,
            4 => 20,
            3 => match counted(bytes, 4) {
                Some(name) => name.end,
                None => return Ok(None),
            },
            _ => return Err(Failure::Client(ClientFault::AddressType)),
        };
        let (Some(address), Some(port)) = (bytes.get(4..end), port(bytes, end)) else { return Ok(None) };
        let host = match kind {
            1 => array(address).map(|octets| Host::from(IpAddr::V4(Ipv4Addr::from_octets(octets)))),
            4 => array(address).map(|octets| Host::from(IpAddr::V6(Ipv6Addr::from_octets(octets)))),
            _ => name(&address[1..]),
        };
        self.carry_out(command, host, port, self.at + end + 2)
    }

    /// `04 command port address userid 00`, and for 4a `name 00` behind an address 0.0.0.x.
    fn v4(&mut self, opening: &[u8]) -> Part<Step> {
        let Some(address) = opening.get(4..8) else { return Ok(None) };
        let (Some(userid), Some(port)) = (until_nul(opening, 8)?, port(opening, 2)) else { return Ok(None) };
        let (host, end) = match *address {
            [0, 0, 0, last] if last != 0 => match until_nul(opening, userid.end + 1)? {
                Some(text) => (name(&opening[text.clone()]), text.end + 1),
                None => return Ok(None),
            },
            _ => (array(address).map(|octets| Host::from(IpAddr::V4(Ipv4Addr::from_octets(octets)))), userid.end + 1),
        };
        let colon = opening[userid.clone()].iter().position(|&b| b == b':').map(|at| userid.start + at);
        self.username = userid.start..colon.unwrap_or(userid.end);
        self.password = colon.map_or(0..0, |colon| colon + 1..userid.end);
        self.carry_out(opening[1], host, port, end)
    }

    fn carry_out(&self, command: u8, host: Option<Host>, port: u16, used: usize) -> Part<Step> {
        let v5 = self.state == State::Request;
        if !matches!(command, CONNECT | RESOLVE) && !(v5 && command == RESOLVE_PTR) {
            return Err(Failure::Client(ClientFault::Command));
        }
        let bad = Failure::Client(ClientFault::Target);
        let host = host.ok_or(bad)?;
        let command = match (command, host) {
            (CONNECT, host) => Command::Connect(Target::new(host, port).map_err(|_| bad)?),
            (RESOLVE_PTR, Host::Ip(ip)) => Command::ResolvePtr(ip),
            (RESOLVE_PTR, Host::Name(_)) => return Err(bad),
            (_, host) => Command::Resolve(host),
        };
        Ok(Some(Step::Do { command, used }))
    }
}

/// A text behind its one-byte length at `at`.
fn counted(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let end = at + 1 + usize::from(*bytes.get(at)?);
    (bytes.len() >= end).then_some(at + 1..end)
}

/// A text from `at` up to a NUL. One longer than [`TEXT_MAX`] is refused, because a client could send it without end.
fn until_nul(bytes: &[u8], at: usize) -> Part<Range<usize>> {
    let text = bytes.get(at..).unwrap_or_default();
    match text.iter().take(TEXT_MAX + 1).position(|&b| b == 0) {
        Some(length) => Ok(Some(at..at + length)),
        None if text.len() > TEXT_MAX => Err(Failure::Client(ClientFault::Garbage)),
        None => Ok(None),
    }
}

fn port(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes.get(at..at + 2)?).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn name(text: &[u8]) -> Option<Host> {
    Host::parse(std::str::from_utf8(text).ok()?).ok()
}

/// A reply, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; 22],
    length: u8,
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Reply {
    /// The tunnel is open and leaves from `exit`. Always in IPv4's form: some clients read ten bytes whatever the address type.
    pub fn open(version: Version, exit: Option<IpAddr>) -> Self {
        let exit = exit.filter(IpAddr::is_ipv4).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self::address(version, exit).unwrap_or_else(|| Self::refuse(version, Failure::Client(ClientFault::AddressType)))
    }

    /// The address of a name; `None` for IPv6 in SOCKS4, which has no form for it.
    pub fn address(version: Version, address: IpAddr) -> Option<Self> {
        match (version, address) {
            (Version::V4, IpAddr::V4(ip)) => Some(Self::v4(0x5A, ip)),
            (Version::V4, IpAddr::V6(_)) => None,
            (Version::V5, address) => Some(Self::v5(0, address)),
        }
    }

    /// A refusal.
    pub fn refuse(version: Version, failure: Failure) -> Self {
        match version {
            Version::V4 => Self::v4(failure.socks4(), Ipv4Addr::UNSPECIFIED),
            Version::V5 => Self::v5(failure.socks5(), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }

    fn v4(code: u8, ip: Ipv4Addr) -> Self {
        let mut reply = Self { bytes: [0; 22], length: 8 };
        reply.bytes[1] = code;
        reply.bytes[4..8].copy_from_slice(&ip.octets());
        reply
    }

    fn v5(code: u8, ip: IpAddr) -> Self {
        let mut reply = Self { bytes: [0; 22], length: 10 };
        reply.bytes[..4].copy_from_slice(&[5, code, 0, 1]);
        match ip {
            IpAddr::V4(ip) => reply.bytes[4..8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => {
                reply.bytes[3] = 4;
                reply.bytes[4..20].copy_from_slice(&ip.octets());
                reply.length = 22;
            }
        }
        reply
    }
}

/// SOCKS5's answer to RESOLVE_PTR: a name in place of an address. `None` if the name does not fit.
pub fn name_reply(name: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(name.len()).ok().filter(|&length| length > 0)?;
    let mut reply = vec![5, 0, 0, 3, length];
    reply.extend_from_slice(name.as_bytes());
    reply.extend_from_slice(&[0, 0]);
    Some(reply)
}

#[cfg(test)]
mod tests;
