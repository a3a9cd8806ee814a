//! One exchange of plain HTTP: a request to the target and its answer to the client, both at the same time.
//!
//! The two directions run at the same time, because a target may answer before it has the whole request (a 413, or a
//! 100 that the client waits for). Heads are rewritten. Bodies are forwarded unchanged, and [`Body`] finds where the
//! next message begins.
//!
//! The head of an answer is read completely and checked before the client gets any part of it. So if the head is not
//! valid, the client can still get a 502. If the target has not sent a byte, the request can also be sent again through
//! another exit.
//!
//! If a client closes its sending direction, the gateway assumes that the client has left, as nginx does. The exchange
//! then ends, because a client that has left must not occupy an exit.
//!
//! Next: `connection/plain.rs` chooses the stream and decides whether a request is sent again.

mod upload;

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, split};

use self::upload::{Upload, UploadEnd};
use super::body::{Body, Piece};
use super::exchange_state::{ExchangeState, Stopped};
use super::framing::Version;
use super::head::Scan;
use super::response::{self, Asked, Response};
use crate::gateway::client::{ClientStream, Inbox};
use crate::gateway::failure::{AnswerFault, ClientFault, Failure, Limited};
use crate::gateway::gate::{Forwarder, Opened};
use crate::gateway::relay::{Direction, Meter};

/// The maximum number of interim answers that a target may send before its final answer. Targets send a 100 or a 103
/// once, or a 102 every few seconds for a minute or two. Not tuned.
const INTERIM_MAX: u32 = 32;

/// A client's request, with its head rewritten for the target.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The head that the target gets.
    pub head: Vec<u8>,
    /// The request's body. The client may still be sending it.
    pub body: Body,
    /// The parts of the request that decide how the answer must be read.
    pub asked: Asked,
    /// True if the client wants to keep the connection.
    pub keep: bool,
    /// True if sending the request twice has the same effect as sending it once.
    pub idempotent: bool,
    /// True if the client waits for a `100 Continue` before it sends the body.
    pub expects: bool,
    /// True if the answer must contain the identity of the exit.
    pub identity: bool,
    /// The client's report that the site refused the previous request. `None` if there is no report.
    pub report: Option<Box<str>>,
}

impl Exchange {
    /// Returns the head of the request as it is sent to a forwarding proxy. That head differs from a head that is sent
    /// directly to the target: it contains the absolute URL and, if the proxy needs one, the login.
    fn head_for(&self, forwarder: &Forwarder) -> Vec<u8> {
        let Forwarder { origin, authorization } = forwarder;
        let path = self.head.iter().position(|byte| *byte == b' ').map_or(0, |blank| blank + 1);
        let line = self.head.windows(2).position(|two| two == b"\r\n").map_or(self.head.len(), |end| end + 2);
        let mut head = Vec::with_capacity(self.head.len() + origin.len() + 64);
        head.extend_from_slice(&self.head[..path]);
        head.extend_from_slice(origin.as_bytes());
        // In a request to a proxy, `OPTIONS *` is written as `OPTIONS http://host` (RFC 9112, section 3.2.4).
        let asterisk = self.head[path..].starts_with(b"* ");
        head.extend_from_slice(&self.head[path + usize::from(asterisk)..line]);
        if let Some(login) = authorization {
            head.extend_from_slice(format!("Proxy-Authorization: {login}\r\n").as_bytes());
        }
        head.extend_from_slice(&self.head[line..]);
        head
    }

    /// Returns the head if it may be sent together with the dial. A head that is sent with the dial may be lost or sent
    /// twice. Returns an empty slice if that would not be safe.
    pub fn early(&self) -> &[u8] {
        if self.idempotent && self.body == Body::NONE { &self.head } else { &[] }
    }
}

/// How an exchange ended.
#[derive(Debug, PartialEq, Eq)]
pub enum ExchangeEnd {
    /// The client has received the whole answer.
    Answered {
        status: u16,
        /// True if the client's connection can serve another request.
        client_keeps: bool,
        /// True if the target's connection can serve another request.
        target_keeps: bool,
    },
    /// The target switched to another protocol. The field holds the first bytes of this protocol.
    Upgraded(Vec<u8>),
    /// The stream ended before the first byte of an answer.
    Died {
        /// True if the whole request is still in memory and is safe to send twice.
        repeatable: bool,
    },
    /// No byte of an answer came within [`Idle::answer`](crate::gateway::relay::Idle), and the request is safe to send
    /// twice.
    Unanswered,
    Failed {
        failure: Failure,
        notice: Notice,
    },
}

/// How the client notices that its exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The client gets an error answer. This is possible only while the client has received no byte of the target's
    /// answer.
    Answer,
    /// The connection is closed before the client has received as many bytes as the answer's head announces.
    Close,
    /// The client gets a reset. The answer has no length and lasts until the connection ends, so a normal close would
    /// make a truncated answer look complete.
    Reset,
}

/// Flags that one direction sets and the other direction reads.
#[derive(Debug)]
struct Progress {
    /// True once a byte of the request's body has been taken from the client.
    body_begun: AtomicBool,
    /// True once the whole request has been sent.
    sent: AtomicBool,
    /// True once the client has received a byte of the final answer.
    answer_begun: AtomicBool,
}

/// Sends the request over `opened`, and sends the target's answer to the client. `sent_early` is true if the head of
/// the request was already sent together with the dial. `exit_fields` has the fields of the answer that describe the exit.
pub async fn exchange<L>(
    client: &mut ClientStream,
    inbox: &mut Inbox,
    opened: &mut Opened<L>,
    exchange: &Exchange,
    (sent_early, exit_fields): (bool, &str),
    meter: &impl Meter,
) -> ExchangeEnd {
    let carrier = ExchangeState::new(meter, opened.idle, opened.rate.as_deref(), opened.spend.as_ref());
    let progress = Progress {
        body_begun: AtomicBool::new(false),
        sent: AtomicBool::new(sent_early),
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
        exit_fields,
    };
    let upload = upload.run(inbox, sent_early);
    let download = download.run();
    tokio::pin!(upload, download);
    let mut sending = true;
    loop {
        tokio::select! {
            biased;
            end = &mut download => return end,
            stop = &mut upload, if sending => match stop {
                UploadEnd::Budget => return over_budget(progress.answer_begun.load(Ordering::Relaxed), None),
                // The target no longer reads the request, but it may have sent an answer before. So the direction from
                // the target to the client continues, to read such an answer.
                UploadEnd::Target => sending = false,
                UploadEnd::Client(failure) => {
                    let begun = progress.answer_begun.load(Ordering::Relaxed);
                    let notice = if begun { Notice::Close } else { Notice::Answer };
                    return ExchangeEnd::Failed { failure, notice };
                }
            },
        }
    }
}

struct Download<'a, M, R, W> {
    exchange: &'a Exchange,
    carrier: &'a ExchangeState<'a, M>,
    progress: &'a Progress,
    target: R,
    client: W,
    answer: Inbox,
    /// The fields of the answer that describe the exit.
    exit_fields: &'a str,
}

/// The parts of an answer's head that the rest of the exchange needs.
struct AnswerHead {
    status: u16,
    body: Body,
    persists: bool,
    /// True if the client's connection can serve another request. The `Connection` field of the head for the client has
    /// the same meaning.
    client_keeps: bool,
}

impl<M: Meter, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Download<'_, M, R, W> {
    async fn run(mut self) -> ExchangeEnd {
        match self.begin().await {
            Ok(AnswerHead { status: 101, .. }) => ExchangeEnd::Upgraded(self.answer.into_rest()),
            Ok(begun) => self.finish(begun).await,
            Err(end) => end,
        }
    }

    /// Reads heads until the head of the final answer, and sends each head to the client. The final head is sent
    /// together with the bytes of the body that have already arrived, so a small answer needs only one write.
    async fn begin(&mut self) -> Result<AnswerHead, ExchangeEnd> {
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
                // HTTP/1.0 has no interim answers (RFC 9110, section 15.2), so an HTTP/1.0 client does not get them.
                if asked.version == Version::Current {
                    self.send_client(&out).await?;
                }
                self.answer.consume(length);
                continue;
            }
            let client_keeps = self.keeps(head.body);
            let mut begun = AnswerHead { status: head.status, body: head.body, persists: head.persists, client_keeps };
            out.extend_from_slice(self.added_fields(&begun).as_bytes());
            // The bytes after a 101 answer are not a body but belong to the new protocol. The relay carries them.
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

    /// Reads a whole head and returns its length in bytes.
    async fn head(&mut self) -> Result<usize, ExchangeEnd> {
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
                Err(Stopped::Budget) => return Err(over_budget(false, None)), // only a write returns this
                // Here the target has not answered at all, and the request may still succeed through another exit.
                // Therefore the time limit for this wait may be shorter than the limits for other silences.
                Err(Stopped::Silent)
                    if self.answer.is_empty() && self.carrier.expects_answers() && self.may_repeat() =>
                {
                    return Err(ExchangeEnd::Unanswered);
                }
                Err(Stopped::Silent) => return Err(failed(Failure::Answer(AnswerFault::Timeout))),
                Ok(false) | Err(Stopped::Broken) if self.answer.is_empty() => return Err(self.died()),
                Ok(false) | Err(Stopped::Broken) => return Err(failed(Failure::Answer(AnswerFault::Incomplete))),
            }
        }
    }

    fn died(&self) -> ExchangeEnd {
        ExchangeEnd::Died { repeatable: self.may_repeat() }
    }

    /// Returns true if a request without an answer may be sent again. One condition is that no byte of the request's
    /// body has been taken from the client. The other condition is that the request is idempotent or that the target is
    /// still waiting for the body.
    fn may_repeat(&self) -> bool {
        let whole = self.exchange.body == Body::NONE || !self.progress.body_begun.load(Ordering::Relaxed);
        let waits = self.exchange.expects && self.exchange.body != Body::NONE;
        whole && (self.exchange.idempotent || waits)
    }

    /// Returns the fields that the gateway adds to an answer, and the empty line that ends the head. The fields are those
    /// about the exit and, if it is needed, the field `Connection`.
    fn added_fields(&self, begun: &AnswerHead) -> String {
        let mut fields = self.exit_fields.to_owned();
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

    /// Returns true if the client's connection can serve another request. This is not possible while a part of the
    /// request's body may still come, because the gateway could not know where the next request begins.
    fn keeps(&self, body: Body) -> bool {
        let whole = self.exchange.body == Body::NONE || self.progress.sent.load(Ordering::Relaxed);
        self.exchange.keep && body != Body::UntilClose && whole
    }

    async fn finish(mut self, begun: AnswerHead) -> ExchangeEnd {
        let AnswerHead { status, mut body, persists, client_keeps } = begun;
        while !body.is_over() {
            let Ok(piece) = body.piece(self.answer.bytes()) else { return broken(AnswerFault::Coding, body) };
            let (taken, text) = match &piece {
                Piece::Whole(taken) => (*taken, &self.answer.bytes()[..*taken]),
                Piece::Trailers { taken, text } => (*taken, &text[..]),
                Piece::More => match self.carrier.read(&mut self.answer, &mut self.target).await {
                    Ok(true) => continue,
                    Ok(false) if body.may_end_here() => break,
                    Err(Stopped::Silent) => return broken(AnswerFault::Timeout, body),
                    Ok(false) | Err(Stopped::Broken | Stopped::Budget) => return broken(AnswerFault::Incomplete, body),
                },
            };
            match self.carrier.write(&mut self.client, text, Direction::Down).await {
                Ok(()) => {}
                Err(Stopped::Budget) => return over_budget(true, Some(body)),
                Err(Stopped::Silent | Stopped::Broken) => return left(),
            }
            self.answer.consume(taken);
        }
        let sent = self.progress.sent.load(Ordering::Relaxed);
        // The target must not send bytes after the answer. If such bytes have arrived, the stream is not used again,
        // and the client never gets these bytes.
        let target_keeps = persists && sent && self.answer.is_empty();
        ExchangeEnd::Answered { status, client_keeps, target_keeps }
    }

    async fn send_client(&mut self, bytes: &[u8]) -> Result<(), ExchangeEnd> {
        // If the budget is used up before the write, the client gets no byte of this head, and can get a 429 instead.
        let begun = !self.carrier.is_over_budget();
        self.carrier.write(&mut self.client, bytes, Direction::Down).await.map_err(|stopped| match stopped {
            Stopped::Budget => over_budget(begun, None),
            Stopped::Silent | Stopped::Broken => left(),
        })
    }
}

fn failed(failure: Failure) -> ExchangeEnd {
    ExchangeEnd::Failed { failure, notice: Notice::Answer }
}

fn left() -> ExchangeEnd {
    ExchangeEnd::Failed { failure: Failure::Client(ClientFault::Left), notice: Notice::Close }
}

/// The end of an exchange whose key has used up a budget. `begun` is true if the client may have received a part of the
/// answer. `body` is the body of that answer, if its head was sent completely.
fn over_budget(begun: bool, body: Option<Body>) -> ExchangeEnd {
    let notice = match (begun, body) {
        (false, _) => Notice::Answer,
        (true, Some(Body::UntilClose)) => Notice::Reset,
        (true, _) => Notice::Close,
    };
    ExchangeEnd::Failed { failure: Failure::Limited(Limited::Budget), notice }
}

fn broken(fault: AnswerFault, body: Body) -> ExchangeEnd {
    let notice = if body == Body::UntilClose { Notice::Reset } else { Notice::Close };
    ExchangeEnd::Failed { failure: Failure::Answer(fault), notice }
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
            identity: false,
            report: None,
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
