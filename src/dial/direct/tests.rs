use tokio::net::TcpListener;

use super::*;
use crate::limit::target::{Own, Ports};

fn rules(allow_private: bool) -> Rules {
    Rules::new(Ports::default(), allow_private, Own::new())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn fault_of(target: &str, rules: &Rules) -> Option<DialError> {
    dial(&target.parse().unwrap(), rules, None, soon()).await.err()
}

fn addrs(list: &str) -> Vec<SocketAddr> {
    list.split_whitespace().map(|addr| addr.parse().unwrap()).collect()
}

#[test]
fn only_allowed_addresses_are_left_families_in_turn() {
    for (resolved, want) in [
        ("1.1.1.1:1 2.2.2.2:1 [2606::1]:1 [2606::2]:1", Ok("1.1.1.1:1 [2606::1]:1 2.2.2.2:1 [2606::2]:1")),
        ("[2606::1]:1 [2606::2]:1 1.1.1.1:1", Ok("[2606::1]:1 1.1.1.1:1 [2606::2]:1")),
        ("10.0.0.1:1 1.1.1.1:1 127.0.0.1:1", Ok("1.1.1.1:1")),
        ("[::ffff:127.0.0.1]:1 [64:ff9b::7f00:1]:1", Err(TargetFault::Forbidden)),
        ("1.1.1.1:1 1.1.1.2:1 1.1.1.3:1 1.1.1.4:1 1.1.1.5:1", Ok("1.1.1.1:1 1.1.1.2:1 1.1.1.3:1 1.1.1.4:1")),
        ("", Err(TargetFault::NoSuchName)),
    ] {
        assert_eq!(allowed(addrs(resolved), |addr| rules(false).address(addr).is_ok()), want.map(addrs), "{resolved}");
    }
}

#[test]
fn resolver_errors_are_told_apart_by_their_text() {
    for (text, want) in [
        ("failed to lookup address information: Name or service not known", TargetFault::NoSuchName),
        ("failed to lookup address information: No address associated with hostname", TargetFault::NoSuchName),
        ("failed to lookup address information: Name does not resolve", TargetFault::NoSuchName),
        ("failed to lookup address information: Temporary failure in name resolution", TargetFault::NameFailed),
        ("failed to lookup address information: Try again", TargetFault::NameFailed),
        ("anything", TargetFault::NameFailed),
    ] {
        assert_eq!(resolver_fault(text), want, "{text}");
    }
}

#[test]
fn each_errno_maps_to_whose_fault_it_is() {
    for (code, want) in [
        (libc::ECONNREFUSED, DialError::Target(TargetFault::Refused)),
        (libc::ECONNRESET, DialError::Target(TargetFault::Reset)),
        (libc::ETIMEDOUT, DialError::Target(TargetFault::Timeout)),
        (libc::EHOSTUNREACH, DialError::Target(TargetFault::Unreachable)),
        (libc::ENETUNREACH, DialError::Target(TargetFault::Unreachable)),
        (libc::EPERM, DialError::Target(TargetFault::Unreachable)),
        (libc::EMFILE, DialError::Engine(EngineFault::Exhausted)),
        (libc::EADDRNOTAVAIL, DialError::Engine(EngineFault::Exhausted)),
    ] {
        assert_eq!(connect_fault(&io::Error::from_raw_os_error(code)), want, "errno {code}");
    }
}

#[tokio::test]
async fn reaches_a_literal_and_says_who_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let target = addr.to_string();
    let Ok(Stream::Tcp(stream)) = dial(&target.parse().unwrap(), &rules(true), None, soon()).await else {
        panic!("not connected")
    };
    assert_eq!(stream.peer_addr().unwrap(), addr);
    assert!(stream.nodelay().unwrap());
    assert_eq!(fault_of(&target, &rules(false)).await, Some(TargetFault::Forbidden.into()));
    let own = Own::new();
    own.insert(addr);
    let ours = Rules::new(Ports::default(), true, own);
    assert_eq!(fault_of(&target, &ours).await, Some(TargetFault::Forbidden.into()));
    drop(listener);
    assert_eq!(fault_of(&target, &rules(true)).await, Some(TargetFault::Refused.into()));
}

#[tokio::test]
async fn each_address_of_a_name_is_checked() {
    // The name of the machine itself resolves without a network (RFC 6761), and only to loopback addresses.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let resolved = resolve("localhost", port).await.unwrap();
    assert_eq!(allowed(resolved, |addr| rules(false).address(addr).is_ok()), Err(TargetFault::Forbidden));
    assert_eq!(fault_of(&format!("localhost:{port}"), &rules(true)).await, None);
}

#[tokio::test]
async fn the_next_address_is_tried_and_the_first_error_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let dead = SocketAddr::new([127, 0, 0, 2].into(), good.port());
    assert!(race(&[dead, good], None).await.is_ok());
    assert_eq!(race(&[dead, dead], None).await.err(), Some(TargetFault::Refused.into()));
}

#[tokio::test]
async fn the_deadline_holds() {
    let target = "127.0.0.1:9".parse().unwrap();
    // After its deadline the dial starts nothing that takes time, and the error tells which step the dial was waiting
    // for.
    let fault = dial(&target, &rules(true), None, Instant::now() - Duration::from_secs(1)).await.err();
    assert!(matches!(fault, Some(DialError::Target(TargetFault::Timeout | TargetFault::Refused))), "{fault:?}");
}

#[tokio::test]
async fn a_connection_leaves_from_the_own_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let from: IpAddr = "127.77.66.55".parse().unwrap();
    let dialed = dial(&target, &rules(true), Some(from), soon()).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().1.ip(), from);
    drop(dialed);
}

#[tokio::test]
async fn an_own_address_reaches_only_its_family() {
    for (target, from) in [("127.0.0.1:9", "::1"), ("[::1]:9", "127.0.0.1")] {
        let from = Some(from.parse().unwrap());
        let fault = dial(&target.parse().unwrap(), &rules(true), from, soon()).await.unwrap_err();
        assert_eq!(fault, ExitFault::Policy.into(), "{target}");
    }
    let mixed = addrs("1.1.1.1:1 [2606::1]:1 2.2.2.2:1");
    assert_eq!(of_family(mixed.clone(), Some([192, 0, 2, 1].into())), Ok(addrs("1.1.1.1:1 2.2.2.2:1")));
    assert_eq!(of_family(mixed.clone(), None), Ok(mixed));
    assert_eq!(of_family(addrs("1.1.1.1:1"), Some("::1".parse().unwrap())), Err(ExitFault::Policy.into()));
}

#[tokio::test]
async fn an_address_that_is_not_of_this_machine_is_the_exits_fault() {
    let foreign: IpAddr = [192, 0, 2, 254].into();
    assert!(can_leave_from(foreign).is_err() && can_leave_from([127, 1, 2, 3].into()).is_ok());
    let fault = dial(&"127.0.0.1:9".parse().unwrap(), &rules(true), Some(foreign), soon()).await.unwrap_err();
    assert_eq!(fault, ExitFault::Unreachable.into());
}
