//! One request on one circuit: the SOCKS connection to the engine, the events of the stream on the control connection,
//! and the two tests of a circuit on which an answer takes long.
//!
//! Next: `dial/tor/silence.rs` draws the conclusion from the tests.

use std::io;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::silence::{Evidence, Limits};
use super::socks::{self, Answer, Ask, Handshake};
use super::{Timings, fault};
use crate::dial::{DialError, EngineFault, ExitFault, Stream};
use crate::net::Host;
use crate::tor::StreamFault;
use crate::tor::control::{Addr, ControlError};
use crate::tor::event::EndReason;
use crate::tor::stream::{Doubt, Expected, Seen};

/// After SOCKS reported a failure, the dial waits this long for the reason on the control connection. The reason is
/// nearly always there already, because tor writes the event first.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// The dial waits this long for an error of old versions of tor: if an exit ended a stream without a reason, such a tor
/// reports success on the SOCKS connection, and the end of the stream at the same moment on the control connection. A
/// newer tor needs no such wait.
const FALSE_SUCCESS_WAIT: Duration = Duration::from_millis(2);

/// If a target does not answer, the gateway tests the exit: the exit must look up the address of this name. Every
/// answer shows that the exit works, also the answer that the name does not exist. tor relays look up this name
/// themselves at intervals, so most of them know the address.
const PROBE_NAME: &str = "www.google.com";

/// Sends one request on one circuit: gets a lease, sends the request to the engine, and waits for the result.
pub(super) async fn send(
    mut expected: Expected,
    what: &Ask<'_>,
    early: &[u8],
    limits: Limits,
    timings: &mut Timings,
) -> Result<(Stream, Host), DialError> {
    let mut stream = connect(&expected.addr).await?;
    let request = socks::request(&expected.username(), what, early);
    stream.write_all(&request).await.map_err(lost)?;
    timings.sent = Instant::now();
    let doubt = expected.doubt();
    let doubtful = matches!(what, Ask::Connect(_)) && expected.may_be_false_success();
    let (mut seen, attached, given_up) = (None, OnceLock::new(), OnceLock::new());
    let reply = {
        let watched = pin!(watch(&mut expected, &mut seen, &attached));
        let wait = Wait { doubt: &doubt, attached: &attached, given_up: &given_up, what, limits };
        let mut failed = pin!(wait.until_failed(watched));
        let answer = tokio::select! {
            biased;
            reply = read_reply(&mut stream) => reply,
            why = &mut failed => return Err(why),
        };
        match answer {
            Ok(Answer::Yes(host)) if doubtful => match timeout(FALSE_SUCCESS_WAIT, &mut failed).await {
                Ok(why @ DialError::Exit(ExitFault::Refused)) => return Err(why),
                _ => Ok(host),
            },
            Ok(Answer::Yes(host)) => Ok(host),
            // SOCKS refused the request, or its connection broke: the control connection delivers the reason.
            no => match timeout(REASON_WAIT, &mut failed).await {
                Ok(why) => return Err(why),
                Err(_) if given_up.get().is_some() => return Err(failed.await),
                Err(_) => Err(no),
            },
        }
    };
    (timings.seen, timings.attached, timings.replied) = (seen, attached.into_inner(), Instant::now());
    match reply {
        Ok(host) => Ok((stream, host)),
        Err(Ok(Answer::No(code))) => Err(fault::of_code(code)),
        Err(Ok(Answer::Yes(_))) => Err(EngineFault::Protocol.into()),
        Err(Err(why)) => Err(why),
    }
}

/// The wait for the answer to one request.
struct Wait<'a> {
    doubt: &'a Doubt,
    /// Is set to the time at which tor attached the stream to its circuit.
    attached: &'a OnceLock<Instant>,
    /// Is set if tor gives up waiting for an answer.
    given_up: &'a OnceLock<()>,
    what: &'a Ask<'a>,
    limits: Limits,
}

impl Wait<'_> {
    /// Waits until the stream fails, or until the silence has lasted long enough to know whose fault the silence is.
    /// Meanwhile this function tests the first relays of the circuit and the exit. `watched` is ready when the stream
    /// has ended.
    async fn until_failed(self, mut watched: impl Future<Output = StreamFault> + Unpin) -> DialError {
        let Self { doubt, attached, given_up, what, limits } = self;
        let asked = OnceLock::new();
        let mut probing = pin!(async {
            sleep_until(limits.slow).await;
            asked.get_or_init(|| doubt.test());
            // The future of the exit's test is boxed because it is large, and most dials need no such test.
            Box::pin(exit_answers(doubt)).await;
        });
        let evidence = |exit_answered| Evidence {
            attached: attached.get().is_some(),
            exit_answered,
            exit_silent: asked.get().map(|_| limits.slow.elapsed()),
            first_hop_answered: asked.get().copied().flatten().map(|since| doubt.first_hop_answered(since)),
        };
        let (mut exit_answered, mut looked, mut end) = (false, false, limits.end);
        loop {
            tokio::select! {
                biased;
                fault = &mut watched, if given_up.get().is_none() => match fault {
                    // tor gave up the stream because no answer came. Perhaps only the target is silent. So the exit
                    // still gets the whole time for its test (a name to look up), because a tested exit that answers is
                    // not blamed.
                    StreamFault::Unanswered => {
                        given_up.get_or_init(|| ());
                        end = if exit_answered { Instant::now() } else { end.min(limits.early()) };
                    }
                    fault => return fault.into(),
                },
                () = &mut probing, if !exit_answered => {
                    exit_answered = true;
                    end = if given_up.get().is_some() { Instant::now() } else { end.min(limits.target) };
                }
                () = sleep_until(end) => break,
                () = sleep_until(limits.early()), if !looked => {
                    looked = true;
                    if let Some(why) = evidence(exit_answered).early() {
                        return why;
                    }
                }
            }
        }
        let evidence = evidence(exit_answered);
        tracing::debug!(?evidence, "a stream got no answer");
        evidence.fault(what, &limits)
    }
}

/// Tests the exit: asks for the address of a name, on the circuit whose stream got no answer. Returns once the exit has
/// answered. If the exit does not answer, or if the circuit is gone, this function never returns.
async fn exit_answers(doubt: &Doubt) {
    if ask_exit(doubt).await != Some(true) {
        std::future::pending::<()>().await;
    }
}

/// Asks the exit for the address of [`PROBE_NAME`]. Returns true if the exit answered, and false if the request ended
/// without an answer of the exit. Returns `None` if the request could not be sent or its reply could not be read.
async fn ask_exit(doubt: &Doubt) -> Option<bool> {
    let name = Host::parse(PROBE_NAME).ok()?;
    let mut expected = doubt.probe()?;
    let mut stream = connect(&expected.addr).await.ok()?;
    let request = socks::request(&expected.username(), &Ask::Resolve(&name), &[]);
    stream.write_all(&request).await.ok()?;
    let (mut seen, attached) = (None, OnceLock::new());
    let mut watched = pin!(watch(&mut expected, &mut seen, &attached));
    tokio::select! {
        biased;
        fault = &mut watched => Some(is_word_of_exit(fault)),
        answer = read_reply(&mut stream) => match answer.ok()? {
            Answer::Yes(_) => Some(true),
            // This code of tor has two possible causes: the exit knows no such name, or the circuit is gone. The event
            // about the end of the stream tells which of the two it was.
            Answer::No(_) => Some(timeout(REASON_WAIT, watched).await.map_or(true, is_word_of_exit)),
        },
    }
}

/// Returns true if the exit itself ended the stream.
fn is_word_of_exit(fault: StreamFault) -> bool {
    use EndReason::{CantAttach, Destroy, End, NetUnreachable, Other, TorProtocol};
    match fault {
        StreamFault::Ended(reason) => {
            !matches!(reason, CantAttach | Destroy | End | NetUnreachable | Other | TorProtocol)
        }
        _ => false,
    }
}

/// Follows the events of one stream on the control connection. This function returns only if the stream fails.
async fn watch(expected: &mut Expected, seen: &mut Option<Instant>, attached: &OnceLock<Instant>) -> StreamFault {
    if let Ok(Seen { at, answer }) = (&mut expected.seen).await {
        *seen = Some(at);
        match answer.wait().await {
            Ok(_) => _ = attached.set(Instant::now()),
            // Code 552: the circuit does not exist. Code 551: the circuit is not open. In both cases the circuit died a
            // moment ago.
            Err(ControlError::Refused { code: 551 | 552, .. }) => {
                expected.circuit_is_missing();
                return StreamFault::CircuitGone;
            }
            Err(ControlError::Refused { .. }) => return StreamFault::NotAttached,
            Err(_) => return StreamFault::EngineLost,
        }
    }
    match (&mut expected.end).await {
        // tor completed the request, perhaps with a refusal such as an unknown name: the SOCKS reply will arrive soon.
        Ok(StreamFault::Ended(EndReason::Done)) | Err(_) => std::future::pending().await,
        Ok(fault) => fault,
    }
}

/// Connects to the SOCKS port of an engine.
#[expect(clippy::disallowed_methods, reason = "this goes to an engine, whose address no client chooses")]
pub(super) async fn connect(addr: &Addr) -> Result<Stream, DialError> {
    let connected = match addr {
        Addr::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Addr::Tcp(addr) => TcpStream::connect(addr).await.map(|stream| {
            // If setting TCP_NODELAY fails, the request may be slower, but it still works.
            let _ = stream.set_nodelay(true);
            Stream::Tcp(stream)
        }),
    };
    connected.map_err(|e| match e.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => EngineFault::Exhausted.into(),
        _ => EngineFault::Lost.into(),
    })
}

/// Reads the SOCKS answer and not a byte more, because the bytes after the answer belong to the target's stream.
pub(super) async fn read_reply(stream: &mut Stream) -> Result<Answer, DialError> {
    let mut handshake = Handshake::default();
    let mut buffer = [0; socks::LONGEST];
    loop {
        let piece = &mut buffer[..handshake.wants()];
        stream.read_exact(piece).await.map_err(lost)?;
        match handshake.take(piece) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(socks::Garbage) => return Err(EngineFault::Protocol.into()),
        }
    }
}

pub(super) fn lost(_: io::Error) -> DialError {
    EngineFault::Lost.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_exit_sent_shows_that_it_works() {
        for (fault, want) in [
            (StreamFault::Ended(EndReason::ResolveFailed), true),
            (StreamFault::Ended(EndReason::ExitPolicy), true),
            (StreamFault::Ended(EndReason::ResourceLimit), true),
            (StreamFault::Ended(EndReason::Destroy), false),
            (StreamFault::Ended(EndReason::CantAttach), false),
            (StreamFault::Ended(EndReason::NetUnreachable), false),
            (StreamFault::Ended(EndReason::Other), false),
            (StreamFault::CircuitGone, false),
            (StreamFault::Unanswered, false),
            (StreamFault::FirstHop, false),
            (StreamFault::EngineLost, false),
        ] {
            assert_eq!(is_word_of_exit(fault), want, "{fault:?}");
        }
    }
}
