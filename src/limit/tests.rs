use super::*;

const PAUSE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn ip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn some(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

fn key(name: &str, amounts: Amounts) -> Key {
    Key { name: name.into(), secret: Secret::new(format!("{name}-secret")), amounts }
}

fn damping() -> Damping {
    Damping { failures: some(3).unwrap(), pause: PAUSE }
}

fn limits(keys: Vec<Key>, each_client: Amounts) -> Limits {
    Limits::new(keys, each_client, damping())
}

#[test]
fn a_key_says_who_and_without_keys_anybody_is_nobody() {
    let (now, open) = (Instant::now(), limits(vec![], Amounts::default()));
    assert_eq!(open.identify(ip(1), Some(b"whatever"), now).unwrap().name(), "");
    assert!(!open.has_keys());
    let locked = limits(vec![key("a", Amounts::default()), key("b", Amounts::default())], Amounts::default());
    let who = |password: Option<&[u8]>| locked.identify(ip(1), password, now).map(|who| who.name().to_owned());
    assert_eq!((who(Some(b"a-secret")), who(Some(b"b-secret"))), (Ok("a".into()), Ok("b".into())));
    assert_eq!((who(None), who(Some(b""))), (Err(Refused::NoKey), Err(Refused::NoKey)));
    assert_eq!((who(Some(b"a-secre")), who(Some(b"a"))), (Err(Refused::WrongKey), Err(Refused::WrongKey)));
}

#[test]
fn a_guesser_is_damped_and_its_neighbours_work_on() {
    let (start, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    let ask = |client, key: &str, after| limits.identify(client, Some(key.as_bytes()), start + after).map(drop);
    ask(ip(1), "a-secret", Duration::ZERO).unwrap();
    for n in 0..3 {
        assert_eq!(ask(ip(1), &format!("guess {n}"), Duration::ZERO), Err(Refused::WrongKey));
    }
    let damped = Err(Refused::Damped { retry_after: PAUSE - SECOND });
    assert_eq!(ask(ip(1), "guess 4", SECOND), damped);
    assert_eq!(ask(ip(1), "a-secret", SECOND), Ok(()), "known to be good from here");
    assert_eq!(ask(ip(2), "a-secret", SECOND), Ok(()), "and from elsewhere it is read");
    assert_eq!(ask(ip(1), "guess 4", PAUSE + SECOND), Err(Refused::WrongKey), "a new beginning");
    for n in 0..3 {
        let _ = ask(ip(3), &format!("guess {n}"), Duration::ZERO);
    }
    assert!(matches!(ask(ip(3), "a-secret", SECOND), Err(Refused::Damped { .. })), "nor does a right guess show");
}

#[test]
fn the_same_wrong_key_over_and_over_is_one_guess() {
    let (now, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    for _ in 0..1000 {
        assert_eq!(limits.identify(ip(1), Some(b"last month's"), now).map(drop), Err(Refused::WrongKey));
    }
    assert!(limits.identify(ip(1), Some(b"a-secret"), now).is_ok());
}

#[test]
fn strangers_cannot_fill_memory() {
    let (now, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    for n in 0..40_000_u32 {
        let _ = limits.identify(IpAddr::V4(n.into()), Some(b"x"), now);
    }
    assert!(limits.0.throttle.watched() <= 16_384);
    limits.tidy(now + Duration::from_secs(7200));
    assert_eq!(limits.0.throttle.watched(), 0);
    let one_subscriber = |n: u128| IpAddr::V6(((0x2001_0db8_u128 << 96) + n).into());
    (0..100).for_each(|n| _ = limits.identify(one_subscriber(n), Some(b"x"), now));
    assert_eq!(limits.0.throttle.watched(), 1, "a /64 is one client");
}

#[test]
fn connections_are_counted_while_they_are_held() {
    let two = Amounts { connections: some(2), ..Amounts::default() };
    let (now, limits) = (Instant::now(), limits(vec![key("a", two)], Amounts::default()));
    let who = limits.identify(ip(1), Some(b"a-secret"), now).unwrap();
    let first = limits.admit(&who, ip(1), now).unwrap();
    let _second = limits.admit(&who, ip(2), now).unwrap();
    let full = Denied::Connections { whose: Whose::Key, limit: some(2).unwrap() };
    assert_eq!(limits.admit(&who, ip(3), now).unwrap_err(), full);
    assert_eq!(full.to_string(), "this key has its 2 connections open already");
    drop(first);
    limits.admit(&who, ip(3), now).unwrap();
}

#[test]
fn new_connections_come_at_their_pace() {
    let amounts = Amounts { per_second: some(4), ..Amounts::default() };
    let (start, limits) = (Instant::now(), limits(vec![], amounts));
    let at = |millis| limits.admit(&Who::nobody(), ip(1), start + Duration::from_millis(millis)).map(drop);
    (0..4).for_each(|_| at(0).unwrap());
    let limit = some(4).unwrap();
    let retry_after = Duration::from_millis(250);
    assert_eq!(at(0), Err(Denied::PerSecond { whose: Whose::Client, limit, retry_after }));
    assert_eq!((at(250), at(499).is_err(), at(500)), (Ok(()), true, Ok(())));
    assert!(limits.admit(&Who::nobody(), ip(2), start).is_ok(), "each address has its own");
    // A second later all of it may come at once again, and not more for having waited longer.
    assert_eq!((0..9).filter(|_| at(10_000).is_ok()).count(), 4);
}

#[test]
fn an_address_that_has_left_is_forgotten() {
    let amounts = Amounts { connections: some(9), per_second: some(9), ..Amounts::default() };
    let (now, limits) = (Instant::now(), limits(vec![], amounts));
    let held: Vec<_> = (0..100).map(|n| limits.admit(&Who::nobody(), ip(n), now).unwrap()).collect();
    limits.tidy(now + 10 * SECOND);
    assert_eq!(limits.0.clients.len(), 100);
    drop(held);
    limits.tidy(now);
    assert_eq!(limits.0.clients.len(), 100, "its pace still holds");
    limits.tidy(now + 10 * SECOND);
    assert_eq!(limits.0.clients.len(), 0);
}

#[test]
fn a_reload_changes_amounts_and_keeps_counting() {
    let of = |n| {
        vec![key("a", Amounts { connections: some(n), bytes_per_second: NonZeroU64::new(1000), ..Amounts::default() })]
    };
    let (now, limits) = (Instant::now(), limits(of(5), Amounts::default()));
    let who = limits.identify(ip(1), Some(b"a-secret"), now).unwrap();
    let held: Vec<_> = (0..3).map(|_| limits.admit(&who, ip(1), now).unwrap()).collect();
    limits.replace(of(3), Amounts::default(), damping());
    assert!(limits.admit(&who, ip(1), now).is_err(), "also for who came before");
    let bucket = held[0].rate().unwrap();
    drop(held);
    assert!(Arc::ptr_eq(&limits.admit(&who, ip(1), now).unwrap().rate().unwrap(), &bucket));
    limits.replace(vec![key("b", Amounts::default())], Amounts::default(), damping());
    assert_eq!(limits.identify(ip(1), Some(b"a-secret"), now).map(drop), Err(Refused::WrongKey));
}
