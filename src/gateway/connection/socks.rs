//! A client connection that uses SOCKS: runs the parser of [`crate::gateway::socks`] on the client's socket.

use super::{Connection, Tunnel};
use crate::gateway::failure::{AuthFault, ClientFault, Denial, Failure};
use crate::gateway::gate::{Caller, Gate, Lookup, OpenRequest, Opened, Refusal, Resolved};
use crate::gateway::http::builtin;
use crate::gateway::protocol::Protocol;
use crate::gateway::record::Outcome;
use crate::gateway::socks::{
    AUTH_ACCEPTED, AUTH_REJECTED, Command, NO_METHOD, Reply, Socks, Step, Version, name_reply,
};
use crate::net::{Host, Target};

/// The failure of a SOCKS request, and how the failure is sent to the client.
struct SocksRefusal {
    refusal: Refusal,
    reply: ReplyForm,
}

enum ReplyForm {
    /// The client gets the failure in a reply to its request.
    Reply,
    /// The client gets these two bytes, which answer its greeting or its credentials.
    Early([u8; 2]),
    /// The client gets no reply: SOCKS5 defines no reply for a failure before the request.
    None,
}

impl From<Refusal> for SocksRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, reply: ReplyForm::Reply }
    }
}

impl From<Failure> for SocksRefusal {
    fn from(failure: Failure) -> Self {
        Refusal::from(failure).into()
    }
}

/// The result of a SOCKS request.
enum Served<G: Gate> {
    /// A stream to the target is open.
    Opened(Opened<G::Lease>, G::Admitted),
    /// The request has been answered, and the connection ends.
    Answered,
    /// The client wants a tunnel to exit.gate. The first field is the username, the second is the admitted client.
    Builtin(Box<str>, G::Admitted),
}

impl<G: Gate> Connection<'_, G> {
    /// Serves a SOCKS connection until a tunnel is open or the connection ends.
    pub(super) async fn socks(mut self, mut socks: Socks) -> Option<Tunnel<G>> {
        let version = socks.version();
        self.record.protocol_known(protocol(version));
        // The first match moves the other results into a smaller type. A single match would keep the memory of an
        // `Opened` during the awaits of all its arms, and the future of every SOCKS connection would be larger.
        let builtin = match self.request(&mut socks).await {
            Ok(Served::Opened(opened, admitted)) => return Some(self.into_tunnel(opened, admitted)),
            Ok(Served::Builtin(username, admitted)) => Ok(Some((username, admitted))),
            Ok(Served::Answered) => Ok(None),
            Err(refused) => Err(refused),
        };
        match builtin {
            Ok(Some((username, admitted))) => {
                Box::pin(self.builtin_tunnel(protocol(version), &username, &admitted)).await
            }
            Ok(None) => {}
            Err(SocksRefusal { refusal, reply }) => {
                self.record.refused(&refusal);
                // Sending fails if the client is gone. The result is ignored, because the record already has the
                // refusal.
                let _ = match reply {
                    ReplyForm::Reply => self.stream.send(&Reply::refuse(version, refusal.failure)).await,
                    ReplyForm::Early(bytes) => self.stream.send(&bytes).await,
                    ReplyForm::None => Ok(()),
                };
            }
        }
        Box::pin(self.stream.close_after_reply()).await;
        None
    }

    async fn request(&mut self, socks: &mut Socks) -> Result<Served<G>, SocksRefusal> {
        let (command, used, admitted) = self.opening(socks).await?;
        // The inbox is moved out of `self`, because the username borrows from the inbox while the request is served.
        let mut opening = std::mem::take(&mut self.inbox);
        let credentials = socks.credentials(opening.bytes());
        let username = text(credentials.username)?;
        let caller = self.caller(protocol(socks.version()), username);
        let admitted = match admitted {
            Some(admitted) => admitted,
            None => self.admit(&caller, credentials.password)?,
        };
        self.record.asked(username, target(&command));
        let version = socks.version();
        let served = match command {
            Command::Connect(target) if builtin::is_builtin(&target) => {
                self.socks_builtin(version, &target).await?;
                Served::Builtin(username.into(), admitted)
            }
            Command::Connect(target) => {
                let opened = self.socks_connect(version, &caller, &admitted, &target).await?;
                Served::Opened(opened, admitted)
            }
            Command::Resolve(host) => {
                Box::pin(self.resolve(version, &caller, &admitted, Lookup::Address(&host))).await?
            }
            Command::ResolvePtr(ip) => Box::pin(self.resolve(version, &caller, &admitted, Lookup::Pointer(ip))).await?,
        };
        opening.consume(used);
        opening.append(std::mem::take(&mut self.inbox));
        self.inbox = opening;
        Ok(served)
    }

    /// Reads until the request is complete. In SOCKS5 the credentials come before the request and are checked here.
    async fn opening(&mut self, socks: &mut Socks) -> Result<(Command, usize, Option<G::Admitted>), SocksRefusal> {
        let mut admitted = None;
        loop {
            match socks.step(self.inbox.bytes()) {
                Step::More => self.more().await.map_err(|failure| refusal_now(socks, failure))?,
                Step::Send(NO_METHOD) => return Err(early(Failure::Auth(AuthFault::Missing).into(), NO_METHOD)),
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::Check => {
                    let credentials = socks.credentials(self.inbox.bytes());
                    let username = text(credentials.username).map_err(|refusal| early(refusal, AUTH_REJECTED))?;
                    let caller = self.caller(Protocol::Socks5, username);
                    let checked = self.admit(&caller, credentials.password);
                    admitted = Some(checked.map_err(|refusal| early(refusal, AUTH_REJECTED))?);
                    self.send(&AUTH_ACCEPTED).await?;
                }
                Step::Do { command, used } => return Ok((command, used, admitted)),
                Step::Refuse(failure) => return Err(refusal_now(socks, failure)),
            }
        }
    }

    async fn socks_connect(
        &mut self,
        version: Version,
        caller: &Caller<'_>,
        admitted: &G::Admitted,
        target: &Target,
    ) -> Result<Opened<G::Lease>, SocksRefusal> {
        let opened = self.open(caller, admitted, OpenRequest { target, avoid: &[], early: &[] }).await?;
        self.send(&Reply::open(version, opened.exit.ip)).await?;
        Ok(opened)
    }

    async fn resolve(
        &mut self,
        version: Version,
        caller: &Caller<'_>,
        admitted: &G::Admitted,
        lookup: Lookup<'_>,
    ) -> Result<Served<G>, SocksRefusal> {
        let resolved = match lookup {
            // If the client asks for the address of an IP address, the result is the same address, and no exit is used.
            // Tor does the same.
            Lookup::Address(Host::Ip(ip)) => Resolved::Address(*ip),
            lookup => self.context.gate.resolve(caller, admitted, lookup).await?,
        };
        let no_reply_form = Failure::Client(ClientFault::AddressType);
        match resolved {
            Resolved::Address(ip) => self.send(&Reply::address(version, ip).ok_or(no_reply_form)?).await?,
            Resolved::Name(name) => self.send(&name_reply(&name).ok_or(no_reply_form)?).await?,
        }
        self.record.ended(Outcome::Resolved);
        Ok(Served::Answered)
    }

    /// Accepts a SOCKS request for a tunnel to exit.gate. The gateway serves only plain HTTP on port 80 in such a
    /// tunnel.
    async fn socks_builtin(&mut self, version: Version, target: &Target) -> Result<(), SocksRefusal> {
        if target.port != 80 {
            return Err(Failure::Denied(Denial::Target).into());
        }
        self.record.ended(Outcome::Local);
        self.send(&Reply::open(version, None)).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), SocksRefusal> {
        let left = Failure::Client(ClientFault::Left);
        self.stream.send(bytes).await.map_err(|_| SocksRefusal { refusal: left.into(), reply: ReplyForm::None })
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
    let failure = Failure::Client(ClientFault::Username);
    str::from_utf8(username).map_err(|_| Refusal::because(failure, "it is not UTF-8"))
}

fn early(refusal: Refusal, bytes: [u8; 2]) -> SocksRefusal {
    SocksRefusal { refusal, reply: ReplyForm::Early(bytes) }
}

/// Returns a refusal with the kind of reply that SOCKS allows at the present stage of the opening.
fn refusal_now(socks: &Socks, failure: Failure) -> SocksRefusal {
    let reply = if socks.can_refuse() { ReplyForm::Reply } else { ReplyForm::None };
    SocksRefusal { refusal: failure.into(), reply }
}
