//! A connection that speaks SOCKS: the machine of [`crate::gateway::socks`] with a socket in its hands.

use super::{Connection, Tunnel};
use crate::gateway::failure::{AuthFault, ClientFault, Denial, Failure};
use crate::gateway::gate::{Ask, Caller, Gate, Lookup, Opened, Protocol, Refusal, Resolved};
use crate::gateway::http::builtin;
use crate::gateway::record::Outcome;
use crate::gateway::socks::{Command, NO_METHOD, Reply, Socks, Step, UNWELCOME, Version, WELCOME, name_reply};
use crate::net::{Host, Target};

/// Why there will be no tunnel, and how the client is told.
struct Refused {
    refusal: Refusal,
    told: Told,
}

/// How a client is told.
enum Told {
    /// In a reply to its request.
    Reply,
    /// In the two bytes that answer its greeting or its credentials.
    Early([u8; 2]),
    /// Not at all: SOCKS5 has no word for it yet.
    No,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, told: Told::Reply }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Refusal::from(failure).into()
    }
}

/// What a request came to.
enum Done<G: Gate> {
    /// A stream to the target.
    Open(Opened<G::Lease>),
    /// It was answered; nothing follows.
    Answered,
    /// The client wants exit.gate itself, and this is who it is.
    Here(Box<str>, G::Pass),
}

impl<G: Gate> Connection<'_, G> {
    /// Speaks SOCKS until a tunnel is open, or to the end.
    pub(super) async fn socks(mut self, mut socks: Socks) -> Option<Tunnel<G::Lease>> {
        let version = socks.version();
        self.record.speaks(protocol(version));
        match self.request(&mut socks).await {
            Ok(Done::Open(opened)) => return Some(self.tunnel(opened)),
            Ok(Done::Here(username, pass)) => Box::pin(self.desk(protocol(version), &username, &pass)).await,
            Ok(Done::Answered) => {}
            Err(Refused { refusal, told }) => {
                self.record.refused(&refusal);
                // A client that is gone cannot be told; the record knows.
                let _ = match told {
                    Told::Reply => self.stream.send(&Reply::refuse(version, refusal.failure)).await,
                    Told::Early(bytes) => self.stream.send(&bytes).await,
                    Told::No => Ok(()),
                };
            }
        }
        Box::pin(self.stream.farewell()).await;
        None
    }

    async fn request(&mut self, socks: &mut Socks) -> Result<Done<G>, Refused> {
        let (command, used, pass) = self.opening(socks).await?;
        // Out of `self`, because the user name is a piece of it for as long as the request is served.
        let mut spent = std::mem::take(&mut self.inbox);
        let credentials = socks.credentials(spent.bytes());
        let username = text(credentials.username)?;
        let caller = self.caller(protocol(socks.version()), username);
        let pass = match pass {
            Some(pass) => pass,
            None => self.admit(&caller, credentials.password)?,
        };
        self.record.asked(username, target(&command));
        let version = socks.version();
        let done = match command {
            Command::Connect(target) if builtin::is_here(&target) => {
                self.here(version, &target).await?;
                Done::Here(username.into(), pass)
            }
            Command::Connect(target) => Done::Open(self.socks_connect(version, &caller, &pass, &target).await?),
            Command::Resolve(host) => Box::pin(self.resolve(version, &caller, &pass, Lookup::Address(&host))).await?,
            Command::ResolvePtr(ip) => Box::pin(self.resolve(version, &caller, &pass, Lookup::Pointer(ip))).await?,
        };
        spent.consume(used);
        spent.append(std::mem::take(&mut self.inbox));
        self.inbox = spent;
        Ok(done)
    }

    /// Reads up to the end of the request, and checks the credentials if they come before it.
    async fn opening(&mut self, socks: &mut Socks) -> Result<(Command, usize, Option<G::Pass>), Refused> {
        let mut pass = None;
        loop {
            match socks.step(self.inbox.bytes()) {
                Step::More => self.more().await.map_err(|failure| told(socks, failure))?,
                Step::Send(NO_METHOD) => return Err(early(Failure::Auth(AuthFault::Missing).into(), NO_METHOD)),
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::Check => {
                    let credentials = socks.credentials(self.inbox.bytes());
                    let username = text(credentials.username).map_err(|refusal| early(refusal, UNWELCOME))?;
                    let caller = self.caller(Protocol::Socks5, username);
                    let admitted = self.admit(&caller, credentials.password);
                    pass = Some(admitted.map_err(|refusal| early(refusal, UNWELCOME))?);
                    self.send(&WELCOME).await?;
                }
                Step::Do { command, used } => return Ok((command, used, pass)),
                Step::Refuse(failure) => return Err(told(socks, failure)),
            }
        }
    }

    async fn socks_connect(
        &mut self,
        version: Version,
        caller: &Caller<'_>,
        pass: &G::Pass,
        target: &Target,
    ) -> Result<Opened<G::Lease>, Refused> {
        let opened = self.open(caller, pass, Ask { target, avoid: &[], early: &[] }).await?;
        self.send(&Reply::open(version, opened.facts.ip)).await?;
        Ok(opened)
    }

    async fn resolve(
        &mut self,
        version: Version,
        caller: &Caller<'_>,
        pass: &G::Pass,
        lookup: Lookup<'_>,
    ) -> Result<Done<G>, Refused> {
        let resolved = match lookup {
            // An address is its own answer, as tor has it: no exit is asked.
            Lookup::Address(Host::Ip(ip)) => Resolved::Address(*ip),
            lookup => self.context.gate.resolve(caller, pass, lookup).await?,
        };
        let unsayable = Failure::Client(ClientFault::AddressType);
        match resolved {
            Resolved::Address(ip) => self.send(&Reply::address(version, ip).ok_or(unsayable)?).await?,
            Resolved::Name(name) => self.send(&name_reply(&name).ok_or(unsayable)?).await?,
        }
        self.record.settle(Outcome::Resolved);
        Ok(Done::Answered)
    }

    /// exit.gate is plain HTTP, on port 80.
    async fn here(&mut self, version: Version, target: &Target) -> Result<(), Refused> {
        if target.port != 80 {
            return Err(Failure::Denied(Denial::Target).into());
        }
        self.record.settle(Outcome::Here);
        self.send(&Reply::open(version, None)).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let left = Failure::Client(ClientFault::Left);
        self.stream.send(bytes).await.map_err(|_| Refused { refusal: left.into(), told: Told::No })
    }
}

fn protocol(version: Version) -> Protocol {
    match version {
        Version::V4 => Protocol::Socks4,
        Version::V5 => Protocol::Socks5,
    }
}

fn target(command: &Command) -> Option<&Target> {
    match command {
        Command::Connect(target) => Some(target),
        Command::Resolve(_) | Command::ResolvePtr(_) => None,
    }
}

fn text(username: &[u8]) -> Result<&str, Refusal> {
    let why = Failure::Client(ClientFault::Username);
    str::from_utf8(username).map_err(|_| Refusal::because(why, "it is not UTF-8"))
}

fn early(refusal: Refusal, bytes: [u8; 2]) -> Refused {
    Refused { refusal, told: Told::Early(bytes) }
}

fn told(socks: &Socks, failure: Failure) -> Refused {
    Refused { refusal: failure.into(), told: if socks.can_refuse() { Told::Reply } else { Told::No } }
}
