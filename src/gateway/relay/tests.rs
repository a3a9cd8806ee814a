use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A tunnel between two sockets. The relay runs between the two inner sockets. `near` is the client's end and `far` is
/// the target's end.
struct Rig {
    near: TcpStream,
    client: TcpStream,
    far: TcpStream,
    target: TcpStream,
    traffic: Traffic,
    cut: Cut,
}

const IDLE: Idle = Idle {
    open: Duration::from_secs(60),
    answer: Duration::from_secs(60),
    half: Duration::from_secs(20),
    stalled: Duration::from_secs(10),
};

impl Rig {
    async fn new() -> Self {
        let ((near, client), (far, target)) = (pair().await, pair().await);
        Self { near, client, far, target, traffic: Traffic::default(), cut: Cut::new() }
    }

    /// Runs the relay while `story` runs. Both must finish.
    async fn tell<F: Future>(self, rate: Option<Bucket>, story: impl FnOnce(TcpStream, TcpStream, Cut) -> F) -> End {
        self.tell_spending(rate, None, story).await
    }

    /// Does the same as [`Rig::tell`] for a client whose key has budgets.
    async fn tell_spending<F: Future>(
        self,
        rate: Option<Bucket>,
        spend: Option<Spend>,
        story: impl FnOnce(TcpStream, TcpStream, Cut) -> F,
    ) -> End {
        let Self { near, client, far, target, traffic, cut } = self;
        let rate = rate.map(Arc::new);
        let terms = Terms { first_up: b"<", first_down: b">", idle: &IDLE, rate, spend, meter: &traffic, cut: &cut };
        let relaying = relay(client, dial::Stream::Tcp(target), terms);
        let (end, _) = tokio::join!(relaying, story(near, far, cut.clone()));
        assert_eq!(
            (end.up, end.down),
            (traffic.up(), traffic.down()),
            "what is counted live is what is told at the end"
        );
        end
    }
}

#[expect(clippy::disallowed_methods, reason = "the two ends of a tunnel under test")]
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), two.unwrap().0)
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn is_reset(stream: &mut TcpStream) {
    let fault = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Returns bytes in which a swapped, lost or doubled piece is detected.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[tokio::test]
async fn an_end_in_one_direction_leaves_the_other_open() {
    let end = Rig::new().await.tell(None, async |mut near, mut far, _| {
        near.write_all(b"ask").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(rest(&mut far).await, b"<ask");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        assert_eq!(rest(&mut near).await, b">answer");
    });
    assert_eq!(end.await, End { reason: Reason::Finished, up: 4, down: 7 });
}

#[tokio::test]
async fn bulk_and_small_pieces_arrive_complete_in_both_directions() {
    // The first of these bytes are copied, the next are spliced, and the last are copied again while other bytes may
    // still be in the pipe.
    let all: Vec<u8> = [pattern(3 << 20), pattern(500), pattern(5 << 20), pattern(1)].concat();
    let end = Rig::new().await.tell(None, async |near, far, _| {
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = far.into_split();
        let send = async |out: &mut tokio::net::tcp::OwnedWriteHalf| {
            for piece in [&all[..3 << 20], &all[3 << 20..(3 << 20) + 500], &all[(3 << 20) + 500..]] {
                out.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            out.shutdown().await.unwrap();
        };
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let (_, _, up_end, down_end) = tokio::join!(
            send(&mut near_out),
            send(&mut far_out),
            far_in.read_to_end(&mut up),
            near_in.read_to_end(&mut down),
        );
        assert!(up_end.is_ok() && down_end.is_ok());
        assert!(up[0] == b'<' && up[1..] == all, "up");
        assert!(down[0] == b'>' && down[1..] == all, "down");
    });
    let moved = all.len() as u64 + 1;
    assert_eq!(end.await, End { reason: Reason::Finished, up: moved, down: moved });
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let gone = Rig::new().await.tell(None, async |near, mut far, _| {
        assert_eq!(far.read_u8().await.unwrap(), b'<');
        near.set_zero_linger().unwrap();
        drop(near);
        is_reset(&mut far).await;
    });
    assert_eq!(gone.await.reason, Reason::ClientGone);
    let gone = Rig::new().await.tell(None, async |mut near, far, _| {
        assert_eq!(near.read_u8().await.unwrap(), b'>');
        far.set_zero_linger().unwrap();
        drop(far);
        is_reset(&mut near).await;
    });
    assert_eq!(gone.await.reason, Reason::TargetGone);
}

#[tokio::test]
async fn a_cut_is_a_reset_on_both_sides() {
    let end = Rig::new().await.tell(None, async |mut near, mut far, cut| {
        assert_eq!((near.read_u8().await.unwrap(), far.read_u8().await.unwrap()), (b'>', b'<'));
        cut.cut();
        tokio::join!(is_reset(&mut near), is_reset(&mut far));
    });
    assert_eq!(end.await.reason, Reason::Cut);
}

#[tokio::test]
async fn silence_ends_a_tunnel_after_its_limit() {
    let rig = Rig::new().await;
    tokio::time::pause();
    let begun = Instant::now();
    let end = rig.tell(None, async |mut near, _far, _| rest(&mut near).await.len()).await;
    assert_eq!((end.reason, begun.elapsed().as_secs()), (Reason::Idle, 60));
}

#[tokio::test]
async fn a_target_that_never_answers_is_given_up_sooner_where_that_is_set() {
    for (says, reason, seconds) in [(&b""[..], Reason::Unanswered, 7), (b">", Reason::Idle, 60)] {
        let Rig { near: mut client, client: ours, far: _far, target, traffic, cut } = Rig::new().await;
        tokio::time::pause();
        let begun = Instant::now();
        let idle = Idle { answer: Duration::from_secs(7), ..IDLE };
        let terms = Terms {
            first_up: b"<",
            first_down: says,
            idle: &idle,
            rate: None,
            spend: None,
            meter: &traffic,
            cut: &cut,
        };
        let end = relay(ours, dial::Stream::Tcp(target), terms).await;
        assert_eq!((end.reason, begun.elapsed().as_secs()), (reason, seconds));
        if reason == Reason::Unanswered {
            is_reset(&mut client).await;
        }
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_half_closed_tunnel_gets_less_time() {
    let rig = Rig::new().await;
    let begun = std::sync::Mutex::new(None);
    let end = rig.tell(None, async |mut near, mut far, _| {
        near.shutdown().await.unwrap();
        assert_eq!(rest(&mut far).await, b"<");
        tokio::time::pause();
        *begun.lock().unwrap() = Some(Instant::now());
        assert_eq!(rest(&mut near).await, b">");
    });
    let reason = end.await.reason;
    let waited = begun.lock().unwrap().unwrap().elapsed();
    assert_eq!((reason, waited.as_secs()), (Reason::Idle, 20), "{waited:?}");
}

#[tokio::test]
async fn a_side_that_takes_nothing_is_given_up_while_the_other_still_sends() {
    let rig = Rig::new().await;
    let end = rig.tell(None, async |mut near, far, _| {
        let piece = vec![0; 1 << 20];
        let full = async { while near.write_all(&piece).await.is_ok() {} };
        let talk = async {
            // The buffers of the sockets fill in real time. After that the test's clock is advanced.
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::time::pause();
            let _far = far;
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = full => {}
            () = talk => {}
        }
    });
    assert_eq!(end.await.reason, Reason::Stalled(Direction::Up));
}

#[tokio::test]
async fn a_rate_covers_both_directions() {
    let rig = Rig::new().await;
    tokio::time::pause();
    let bucket = Bucket::new(100_000, Instant::now().into_std());
    let begun = Instant::now();
    let end = rig.tell(Some(bucket), async |mut near, mut far, _| {
        near.write_all(&pattern(400_000)).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(rest(&mut far).await.len(), 400_001);
        drop(far);
        rest(&mut near).await
    });
    assert_eq!(end.await.reason, Reason::Finished);
    let took = begun.elapsed().as_secs_f64();
    assert!((2.5..=3.5).contains(&took), "400 kB at 100 kB/s with a second's burst took {took}");
}

/// Runs a tunnel whose target sends 1 MiB more than the budget of the client's key.
async fn over_budget(budget: u64) {
    let account = crate::limit::Account::limited(budget);
    let sent = usize::try_from(budget).unwrap() + (1 << 20);
    let (rig, spend) = (Rig::new().await, account.spend("tor"));
    let story = async |mut near: TcpStream, mut far: TcpStream, _| {
        let read = async move {
            let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                match near.read(&mut buffer).await {
                    Ok(n) if n > 0 => got += n,
                    end => return (got as u64, end.is_err()),
                }
            }
        };
        let write = async move {
            let _ = far.write_all(&vec![7; sent]).await; // fails when the tunnel is cut
            far
        };
        let ((got, reset), _far) = tokio::join!(read, write);
        (got, reset)
    };
    let mut heard = (0, false);
    let end = rig
        .tell_spending(None, Some(spend), |near, far, cut| async {
            heard = story(near, far, cut).await;
        })
        .await;
    assert_eq!(end.reason, Reason::Budget);
    assert_eq!(end.up + end.down, budget, "not a byte more, and not a byte less");
    assert!(heard.1 && heard.0 <= budget, "the client sees a reset, and never more than the budget: {heard:?}");
}

#[tokio::test]
async fn a_tunnel_ends_at_the_last_byte_of_a_budget() {
    over_budget(100_001).await;
}

#[tokio::test]
async fn a_spliced_tunnel_ends_at_the_last_byte_of_a_budget() {
    over_budget(8_000_001).await;
}
