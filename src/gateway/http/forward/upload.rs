//! The direction from the client to the target: the head and the body of a request.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::body::Piece;
use super::super::exchange_state::{ExchangeState, Stopped};
use super::{Exchange, Progress};
use crate::gateway::client::Inbox;
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::relay::{Direction, Meter};

/// Why the upload ended. The last byte of the request does not end the upload: the upload then waits for the client to
/// close.
pub(super) enum UploadEnd {
    /// The target accepts no more bytes.
    Target,
    /// A budget of the client's key is used up.
    Budget,
    /// The client left, or the client's body is malformed or too slow.
    Client(Failure),
}

impl UploadEnd {
    /// Returns the end after a write to the target failed.
    fn of(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Budget => Self::Budget,
            Stopped::Silent | Stopped::Broken => Self::Target,
        }
    }
}

pub(super) struct Upload<'a, M, R, W> {
    pub(super) exchange: &'a Exchange,
    pub(super) head: &'a [u8],
    pub(super) carrier: &'a ExchangeState<'a, M>,
    pub(super) progress: &'a Progress,
    pub(super) client: R,
    pub(super) target: W,
}

impl<M: Meter, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Upload<'_, M, R, W> {
    /// Sends the head, then the body as it comes from the client. After that, waits for the client to close.
    pub(super) async fn run(mut self, inbox: &mut Inbox, sent_early: bool) -> UploadEnd {
        if sent_early {
            self.carrier.count(self.head.len(), Direction::Up);
        } else if let Err(stopped) = self.carrier.write(&mut self.target, self.head, Direction::Up).await {
            return UploadEnd::of(stopped);
        }
        let mut body = self.exchange.body;
        while !body.is_over() {
            let Ok(piece) = body.piece(inbox.bytes()) else {
                return UploadEnd::Client(Failure::Client(ClientFault::Body));
            };
            let (taken, text) = match &piece {
                Piece::Whole(taken) => (*taken, &inbox.bytes()[..*taken]),
                Piece::Trailers { taken, text } => (*taken, &text[..]),
                Piece::More => {
                    match self.carrier.read(inbox, &mut self.client).await {
                        Ok(true) => {}
                        Ok(false) | Err(Stopped::Broken | Stopped::Budget) => {
                            return UploadEnd::Client(Failure::Client(ClientFault::Left));
                        }
                        Err(Stopped::Silent) => return UploadEnd::Client(Failure::Client(ClientFault::Slow)),
                    }
                    continue;
                }
            };
            self.progress.body_begun.store(true, Ordering::Relaxed);
            if let Err(stopped) = self.carrier.write(&mut self.target, text, Direction::Up).await {
                return UploadEnd::of(stopped);
            }
            inbox.consume(taken);
        }
        self.progress.sent.store(true, Ordering::Relaxed);
        inbox.closed(&mut self.client).await;
        UploadEnd::Client(Failure::Client(ClientFault::Left))
    }
}
