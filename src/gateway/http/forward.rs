//! One exchange of plain HTTP: a request to the target, its answer to the client, both at once.
//!
//! The two directions run side by side, because a target may answer before it has the whole request (a 413, a 100 that
//! the client waits for) and a client may still be sending when it does. Heads are rewritten; bodies are passed through
//! as they come, each measured by its [`Body`] so that the next message begins where this one ends. Nothing of an answer
//! reaches the client before its head has been read whole and found to have one meaning; up to then the exchange can
//! still become a 502, or, if the target has not said a byte, be tried again elsewhere.
//!
//! A client that closes its sending side has left, as nginx has it: whoever gave up waiting does not hold an exit.
//!
//! Next: `connection/http.rs` decides what is forwarded, over which stream, and whether it is tried again.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, split};

use super::answer;
use super::body::{Body, Piece};
use super::carry::{Carrier, Stopped};
use super::framing::Version;
use super::head::Scan;
use super::response::{self, Asked, Response};
use crate::gateway::client::{ClientStream, Inbox};
use crate::gateway::failure::{AnswerFault, ClientFault, Failure};
use crate::gateway::gate::{Facts, Forwarder, Opened};
use crate::gateway::relay::{Meter, Way};

/// How many interim answers a target may send before its real one. Arbitrary: 100, 103 and some patience with servers
/// that send a 102 every few seconds.
const INTERIM_MAX: u32 = 32;

/// A request, ready for its target.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The head as the target gets it.
    pub head: Vec<u8>,
    /// What follows it.
    pub body: Body,
    /// What the answer answers.
    pub asked: Asked,
    /// The client reads another answer after this one.
    pub keep: bool,
    /// Sending it twice does what sending it once does.
    pub idempotent: bool,
    /// The client waits for a 100 before it sends the body.
    pub expects: bool,
}

impl Exchange {
    /// The head as a proxy gets it that forwards the request.
    fn head_for(&self, forwarder: &Forwarder) -> Vec<u8> {
        let Forwarder { origin, authorization } = forwarder;
        let path = self.head.iter().position(|byte| *byte == b' ').map_or(0, |blank| blank + 1);
        let line = self.head.windows(2).position(|two| two == b"\r\n").map_or(self.head.len(), |end| end + 2);
        let mut head = Vec::with_capacity(self.head.len() + origin.len() + 64);
        head.extend_from_slice(&self.head[..path]);
        head.extend_from_slice(origin.as_bytes());
        // The whole server is `*` to itself and a bare authority to a proxy (RFC 9112, section 3.2.4).
        let whole = self.head[path..].starts_with(b"* ");
        head.extend_from_slice(&self.head[path + usize::from(whole)..line]);
        if let Some(login) = authorization {
            head.extend_from_slice(format!("Proxy-Authorization: {login}\r\n").as_bytes());
        }
        head.extend_from_slice(&self.head[line..]);
        head
    }

    /// What may go out with the dial: a head whose loss and repetition do no harm.
    pub fn early(&self) -> &[u8] {
        if self.idempotent && self.body == Body::NONE { &self.head } else { &[] }
    }
}

/// How an exchange ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The client has its answer, whole.
    Answered {
        /// The status.
        status: u16,
        /// The client's connection can carry another request.
        client_keeps: bool,
        /// The target's connection can.
        target_keeps: bool,
    },
    /// The target speaks another protocol from here on, and these are its first bytes.
    Upgraded(Vec<u8>),
    /// The stream ended before one byte of an answer.
    Died {
        /// The request is whole still, and sending it elsewhere does no harm.
        again: bool,
    },
    /// Not one byte of an answer came in the time that answers have to begin, and sending the request elsewhere does no harm.
    Unanswered,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// How the client can learn of it.
        by: By,
    },
}

/// How a client can learn that its exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By an answer: it has none yet.
    Answer,
    /// By the end of the connection, short of what the answer's head promised.
    Close,
    /// By a reset: the answer was to last until the end of the connection, and must not look whole.
    Reset,
}

/// What the two directions tell each other.
#[derive(Debug)]
struct Progress {
    /// A byte of the request's body has been taken from the client.
    body_begun: AtomicBool,
    /// The request is sent, whole.
    sent: AtomicBool,
    /// The client has a byte of the final answer.
    answer_begun: AtomicBool,
}

/// Sends the request over `opened` and brings the answer back. `sent`: the head went out with the dial.
pub async fn exchange<L>(
    client: &mut ClientStream,
    inbox: &mut Inbox,
    opened: &mut Opened<L>,
    exchange: &Exchange,
    sent: bool,
    meter: &impl Meter,
) -> End {
    let carrier = Carrier::new(meter, opened.idle, opened.rate.as_deref());
    let progress = Progress {
        body_begun: AtomicBool::new(false),
        sent: AtomicBool::new(sent),
        answer_begun: AtomicBool::new(false),
    };
    let answer = Inbox::from(std::mem::take(&mut opened.first_down));
    let rewritten = opened.forwarder.as_ref().map(|forwarder| exchange.head_for(forwarder));
    let head = rewritten.as_deref().unwrap_or(&exchange.head);
    let (from_client, to_client) = split(client);
    let (from_target, to_target) = split(&mut opened.stream);
    let upload =
        Upload { exchange, head, carrier: &carrier, progress: &progress, client: from_client, target: to_target };
    let download = Download {
        exchange,
        carrier: &carrier,
        progress: &progress,
        target: from_target,
        client: to_client,
        answer,
        facts: &opened.facts,
    };
    let upload = upload.run(inbox, sent);
    let download = download.run();
    tokio::pin!(upload, download);
    let mut sending = true;
    loop {
        tokio::select! {
            biased;
            end = &mut download => return end,
            stop = &mut upload, if sending => match stop {
                // It may have answered all the same: the answer's side will see.
                Break::Target => sending = false,
                Break::Client(failure) => {
                    let begun = progress.answer_begun.load(Ordering::Relaxed);
                    return End::Failed { failure, by: if begun { By::Close } else { By::Answer } };
                }
            },
        }
    }
}

/// Why no more is sent to the target. A request that is sent whole is not an end: the client is then watched.
enum Break {
    /// The target takes no more.
    Target,
    /// The client left, or sends what is no body.
    Client(Failure),
}

struct Upload<'a, M, R, W> {
    exchange: &'a Exchange,
    head: &'a [u8],
    carrier: &'a Carrier<'a, M>,
    progress: &'a Progress,
    client: R,
    target: W,
}

impl<M: Meter, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Upload<'_, M, R, W> {
    async fn run(mut self, inbox: &mut Inbox, sent: bool) -> Break {
        if !sent && self.carrier.write(&mut self.target, self.head, Way::Up).await.is_err() {
            return Break::Target;
        }
        let mut body = self.exchange.body;
        while !body.is_over() {
            let Ok(piece) = body.piece(inbox.bytes()) else {
                return Break::Client(Failure::Client(ClientFault::Body));
            };
            let (taken, text) = match &piece {
                Piece::Whole(taken) => (*taken, &inbox.bytes()[..*taken]),
                Piece::Trailers { taken, text } => (*taken, &text[..]),
                Piece::More => {
                    match self.carrier.read(inbox, &mut self.client).await {
                        Ok(true) => {}
                        Ok(false) | Err(Stopped::Broken) => return Break::Client(Failure::Client(ClientFault::Left)),
                        Err(Stopped::Silent) => return Break::Client(Failure::Client(ClientFault::Slow)),
                    }
                    continue;
                }
            };
            self.progress.body_begun.store(true, Ordering::Relaxed);
            if self.carrier.write(&mut self.target, text, Way::Up).await.is_err() {
                return Break::Target;
            }
            inbox.consume(taken);
        }
        self.progress.sent.store(true, Ordering::Relaxed);
        inbox.departed(&mut self.client).await;
        Break::Client(Failure::Client(ClientFault::Left))
    }
}

struct Download<'a, M, R, W> {
    exchange: &'a Exchange,
    carrier: &'a Carrier<'a, M>,
    progress: &'a Progress,
    target: R,
    client: W,
    answer: Inbox,
    facts: &'a Facts,
}

/// An answer's head, as far as the rest of the exchange needs it.
struct Begun {
    status: u16,
    body: Body,
    persists: bool,
    /// The client's connection lives on, and it has been told so.
    client_keeps: bool,
}

impl<M: Meter, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Download<'_, M, R, W> {
    async fn run(mut self) -> End {
        match self.begin().await {
            Ok(Begun { status: 101, .. }) => End::Upgraded(self.answer.into_rest()),
            Ok(begun) => self.finish(begun).await,
            Err(end) => end,
        }
    }

    /// Reads heads until the final one, and hands on every one of them. The final one takes with it what is there of
    /// the body, so that a small answer is one write.
    async fn begin(&mut self) -> Result<Begun, End> {
        for _ in 0..INTERIM_MAX {
            let length = self.head().await?;
            let asked = self.exchange.asked;
            let head = Response::parse(&self.answer.bytes()[..length], asked)
                .map_err(|fault| failed(response::failure(fault)))?;
            if head.status == 101 && !asked.upgrade {
                return Err(failed(Failure::Answer(AnswerFault::Upgrade)));
            }
            let mut out = Vec::with_capacity(length + 256);
            head.write(&mut out);
            if head.is_interim() {
                out.extend_from_slice(b"\r\n");
                // HTTP/1.0 knows no interim answers (RFC 9110, section 15.2).
                if asked.version == Version::Current {
                    self.send_client(&out).await?;
                }
                self.answer.consume(length);
                continue;
            }
            let client_keeps = self.keeps(head.body);
            let mut begun = Begun { status: head.status, body: head.body, persists: head.persists, client_keeps };
            out.extend_from_slice(self.ours(&begun).as_bytes());
            // What follows a 101 is no body: the relay takes it from here.
            let taken = if begun.status == 101 {
                0
            } else {
                let copied = begun.body.copy(&self.answer.bytes()[length..], &mut out);
                copied.map_err(|_| failed(Failure::Answer(AnswerFault::Coding)))?
            };
            self.progress.answer_begun.store(true, Ordering::Relaxed);
            self.send_client(&out).await?;
            self.answer.consume(length + taken);
            return Ok(begun);
        }
        Err(failed(Failure::Answer(AnswerFault::Interim)))
    }

    /// Reads until a whole head is there; its length.
    async fn head(&mut self) -> Result<usize, End> {
        let mut scan = Scan::default();
        loop {
            if !Response::may_begin(self.answer.bytes()) {
                return Err(failed(Failure::Answer(AnswerFault::Head)));
            }
            match scan.end(self.answer.bytes()) {
                Ok(Some(length)) => return Ok(length),
                Err(fault) => return Err(failed(response::failure(fault))),
                Ok(None) => {}
            }
            match self.carrier.read_answer(&mut self.answer, &mut self.target).await {
                Ok(true) => {}
                // Another exit may do better: that is what the shorter patience is for.
                Err(Stopped::Silent)
                    if self.answer.is_empty() && self.carrier.expects_answers() && self.may_repeat() =>
                {
                    return Err(End::Unanswered);
                }
                Err(Stopped::Silent) => return Err(failed(Failure::Answer(AnswerFault::Timeout))),
                Ok(false) | Err(Stopped::Broken) if self.answer.is_empty() => return Err(self.died()),
                Ok(false) | Err(Stopped::Broken) => return Err(failed(Failure::Answer(AnswerFault::Incomplete))),
            }
        }
    }

    /// Without a byte of an answer the request may go elsewhere, if its body has not: either doing it twice does no
    /// harm, or the target was waiting for a body that never came.
    fn died(&self) -> End {
        End::Died { again: self.may_repeat() }
    }

    fn may_repeat(&self) -> bool {
        let whole = self.exchange.body == Body::NONE || !self.progress.body_begun.load(Ordering::Relaxed);
        let waits = self.exchange.expects && self.exchange.body != Body::NONE;
        whole && (self.exchange.idempotent || waits)
    }

    /// What we add to an answer: which exit it came by, and whether the connection lives on.
    fn ours(&self, begun: &Begun) -> String {
        let mut fields = String::new();
        answer::facts(self.facts, &mut fields);
        if begun.status != 101 {
            if !begun.client_keeps {
                fields.push_str("Connection: close\r\n");
            } else if self.exchange.asked.version == Version::Old {
                fields.push_str("Connection: keep-alive\r\n");
            }
        }
        fields.push_str("\r\n");
        fields
    }

    /// A connection on which the rest of a request may still come, or may not, is not kept: where the next one would
    /// begin is the client's to decide.
    fn keeps(&self, body: Body) -> bool {
        let whole = self.exchange.body == Body::NONE || self.progress.sent.load(Ordering::Relaxed);
        self.exchange.keep && body != Body::UntilClose && whole
    }

    async fn finish(mut self, begun: Begun) -> End {
        let Begun { status, mut body, persists, client_keeps } = begun;
        while !body.is_over() {
            let Ok(piece) = body.piece(self.answer.bytes()) else { return broken(AnswerFault::Coding, body) };
            let (taken, text) = match &piece {
                Piece::Whole(taken) => (*taken, &self.answer.bytes()[..*taken]),
                Piece::Trailers { taken, text } => (*taken, &text[..]),
                Piece::More => match self.carrier.read(&mut self.answer, &mut self.target).await {
                    Ok(true) => continue,
                    Ok(false) if body.may_end_here() => break,
                    Err(Stopped::Silent) => return broken(AnswerFault::Timeout, body),
                    Ok(false) | Err(Stopped::Broken) => return broken(AnswerFault::Incomplete, body),
                },
            };
            if self.carrier.write(&mut self.client, text, Way::Down).await.is_err() {
                return left();
            }
            self.answer.consume(taken);
        }
        let sent = self.progress.sent.load(Ordering::Relaxed);
        // Bytes behind an answer that nobody asked for: whoever sent them is not asked again, and the client never
        // sees them.
        let target_keeps = persists && sent && self.answer.is_empty();
        End::Answered { status, client_keeps, target_keeps }
    }

    async fn send_client(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.carrier.write(&mut self.client, bytes, Way::Down).await.map_err(|_| left())
    }
}

fn failed(failure: Failure) -> End {
    End::Failed { failure, by: By::Answer }
}

fn left() -> End {
    End::Failed { failure: Failure::Client(ClientFault::Left), by: By::Close }
}

fn broken(fault: AnswerFault, body: Body) -> End {
    let by = if body == Body::UntilClose { By::Reset } else { By::Close };
    End::Failed { failure: Failure::Answer(fault), by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_for_a_proxy_names_the_target_and_carries_the_login() {
        let exchange = Exchange {
            head: b"GET /a?b=c HTTP/1.1\r\nHost: web.test:8080\r\n\r\n".to_vec(),
            body: Body::NONE,
            asked: Asked { head: false, version: Version::Current, upgrade: false },
            keep: true,
            idempotent: true,
            expects: false,
        };
        let forwarder = |authorization: Option<&str>| Forwarder {
            origin: "http://web.test:8080".into(),
            authorization: authorization.map(Into::into),
        };
        let whole =
            Exchange { head: b"OPTIONS * HTTP/1.1\r\nHost: web.test:8080\r\n\r\n".to_vec(), ..exchange.clone() };
        let whole = String::from_utf8(whole.head_for(&forwarder(None))).unwrap();
        assert_eq!(whole, "OPTIONS http://web.test:8080 HTTP/1.1\r\nHost: web.test:8080\r\n\r\n");
        let text = |login| String::from_utf8(exchange.head_for(&forwarder(login))).unwrap();
        assert_eq!(text(None), "GET http://web.test:8080/a?b=c HTTP/1.1\r\nHost: web.test:8080\r\n\r\n");
        assert_eq!(
            text(Some("Basic eA==")),
            "GET http://web.test:8080/a?b=c HTTP/1.1\r\nProxy-Authorization: Basic eA==\r\nHost: web.test:8080\r\n\r\n"
        );
    }
}
