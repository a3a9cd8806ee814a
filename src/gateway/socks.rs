//! A parser for SOCKS4, 4a and 5 that does no I/O: it gets bytes and returns one [`Step`].
//!
//! [`Socks`] always gets all bytes of the client's opening (greeting, credentials and request), from the first byte on.
//! It returns what the caller has to do next: read more bytes, send two bytes, check credentials, or carry out a
//! [`Command`]. The parser stores positions in the opening and copies no bytes, so it allocates nothing, whatever
//! lengths a client claims.
//!
//! A client may send its opening byte by byte, or send the opening and the first bytes of the tunnel in one packet. The
//! parser returns the same steps in both cases (a property test checks this).
//!
//! Tor's extensions RESOLVE (0xF0) and RESOLVE_PTR (0xF1) are supported, as in tor's `socks-extensions.txt`. BIND and
//! UDP ASSOCIATE are refused with "command not supported". SOCKS4 has no password. Therefore its userid may contain the
//! password after a `:`, a character that no username contains.
//!
//! A success reply contains the address of the exit. BND.ADDR is the address "that the server used to connect" (RFC
//! 1928, section 6), which is the exit's observed IP. SOCKS has no other field for this address.
//!
//! Next: [`super::connection`] calls this parser; [`super::failure`] has the reply codes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, Range};

use super::failure::{ClientFault, Failure};
use crate::net::{Host, Target};

/// The maximum length of an opening, in bytes. It is the sum of SOCKS5's greeting (2 + 255), credentials (3 + 255 +
/// 255) and request (4 + 256 + 2). A SOCKS4 opening is shorter, because `TEXT_MAX` limits its texts.
#[cfg_attr(feature = "dead-code", allow(dead_code, reason = "fuzz/src/socks.rs checks it"))]
pub const OPENING_MAX: usize = 257 + 513 + 262;

/// The maximum length, in bytes, of a SOCKS4 userid or of a SOCKS4a name, without its NUL. It equals the length of the
/// longest SOCKS5 username plus the longest password.
const TEXT_MAX: usize = 510;

const NO_AUTH: u8 = 0x00;
const USER_PASSWORD: u8 = 0x02;
const CONNECT: u8 = 0x01;
const RESOLVE: u8 = 0xF0;
const RESOLVE_PTR: u8 = 0xF1;

/// The SOCKS5 answer "no acceptable methods". After this answer the client must close.
pub const NO_METHOD: [u8; 2] = [5, 0xFF];
/// The SOCKS5 answer "the credentials are accepted" (RFC 1929).
pub const AUTH_ACCEPTED: [u8; 2] = [1, 0];
/// The SOCKS5 answer "the credentials are rejected" (RFC 1929). The server must close after this answer.
pub const AUTH_REJECTED: [u8; 2] = [1, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or SOCKS4a.
    V4,
    /// SOCKS5 (RFC 1928).
    V5,
}

/// The request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a tunnel to the target.
    Connect(Target),
    /// Look up the address of a name.
    Resolve(Host),
    /// Look up the name of an address.
    ResolvePtr(IpAddr),
}

/// A client's username and password, as bytes of the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'b> {
    /// The username. It is empty if the client sent none.
    pub username: &'b [u8],
    /// The password. `None` if the client sent no password or an empty one.
    pub password: Option<&'b [u8]>,
}

/// What the caller of the parser has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes, then call [`Socks::step`] again with all bytes of the opening.
    More,
    /// Send these two bytes, then call [`Socks::step`] again.
    Send([u8; 2]),
    /// SOCKS5 only: check [`Socks::credentials`]. If they are good, send [`AUTH_ACCEPTED`] and go on. Otherwise send
    /// [`AUTH_REJECTED`] and close.
    Check,
    /// Carry out this command. Check [`Socks::credentials`] first, unless they have been checked already.
    Do {
        command: Command,
        /// The length of the opening in bytes. The bytes after the opening belong to the tunnel.
        used: usize,
    },
    /// Reply with this failure and close. SOCKS5 has no reply for a failure before the request, so such a failure is
    /// not sent.
    Refuse(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    V4,
    Greeting,
    Credentials,
    Request,
}

/// The parser of one client's opening.
#[derive(Clone, Debug)]
pub struct Socks {
    state: State,
    demands_login: bool,
    at: usize,
    username: Range<usize>,
    password: Range<usize>,
}

/// The result of parsing one part of the opening. `None` means that the part is incomplete.
type Part<T> = Result<Option<T>, Failure>;

impl Socks {
    /// Makes a parser for an opening with this first byte. Returns `None` if the byte is not 4 or 5, because the client
    /// does not use SOCKS then.
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

    /// Returns true once a failure can be sent to the client. SOCKS5 has no reply for a failure before the request.
    pub fn can_refuse(&self) -> bool {
        matches!(self.state, State::V4 | State::Request)
    }

    /// Returns the client's credentials. Call this after [`Step::Check`] or [`Step::Do`], with at least the same bytes
    /// of the opening.
    pub fn credentials<'b>(&self, opening: &'b [u8]) -> Credentials<'b> {
        let password = &opening[self.password.clone()];
        Credentials { username: &opening[self.username.clone()], password: (!password.is_empty()).then_some(password) }
    }

    /// Returns the next step. `opening` must contain every byte that the client has sent so far.
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

    /// Parses `05 n methods…`. The parser chooses the method "username and password" if the client offers this method,
    /// because the username selects the exit.
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

    /// Parses `01 n user… n password…`. Some clients offer the method "username and password" and then send an empty
    /// username and an empty password. This means that there is no username and no key.
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

    /// Parses `05 command 00 type address port`.
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

    /// Parses `04 command port address userid 00`. In SOCKS4a the address is 0.0.0.x, and `name 00` follows.
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

/// Returns the range of a text in `bytes`. The byte at `at` is the length of the text, and the text follows this byte.
/// Returns `None` if the text is incomplete.
fn counted(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let end = at + 1 + usize::from(*bytes.get(at)?);
    (bytes.len() >= end).then_some(at + 1..end)
}

/// Returns the range of a text from `at` to the next NUL. A text longer than [`TEXT_MAX`] is refused, because a client
/// could send an endless text.
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

/// A SOCKS reply in the form in which it is sent to the client.
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
    /// Returns the success reply for a tunnel whose exit has the address `exit`. The reply always has an IPv4 address,
    /// because some clients read ten bytes for every address type.
    pub fn open(version: Version, exit: Option<IpAddr>) -> Self {
        let exit = exit.filter(IpAddr::is_ipv4).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self::address(version, exit).unwrap_or_else(|| Self::refuse(version, Failure::Client(ClientFault::AddressType)))
    }

    /// Returns the reply with the address of a name. Returns `None` for an IPv6 address in SOCKS4, which has no form
    /// for such an address.
    pub fn address(version: Version, address: IpAddr) -> Option<Self> {
        match (version, address) {
            (Version::V4, IpAddr::V4(ip)) => Some(Self::v4(0x5A, ip)),
            (Version::V4, IpAddr::V6(_)) => None,
            (Version::V5, address) => Some(Self::v5(0, address)),
        }
    }

    /// Returns the reply for a refused request.
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

/// Returns SOCKS5's reply to RESOLVE_PTR, which has a name in place of an address. Returns `None` if the name is too
/// long.
pub fn name_reply(name: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(name.len()).ok().filter(|&length| length > 0)?;
    let mut reply = vec![5, 0, 0, 3, length];
    reply.extend_from_slice(name.as_bytes());
    reply.extend_from_slice(&[0, 0]);
    Some(reply)
}

#[cfg(test)]
mod tests;
