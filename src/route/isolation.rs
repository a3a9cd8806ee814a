//! Decides which streams may share a circuit. Pure.
//!
//! The relays of a circuit can link the streams on this circuit to each other. So two clients never share a circuit.
//!
//! By default, sessions of one client share circuits, for three reasons. First, the exit sees all of these sessions in
//! any case. Second, a session promises an address and not a circuit of its own. Third, an engine can build only one
//! circuit a second. `docs/decisions/0032-isolation.md` explains this.

use std::net::IpAddr;

use super::balance::seed;
use super::isolate_by::IsolateBy;
use super::selector::SessionId;
use crate::net::Host;

/// A number that decides which streams may share a circuit. Streams share a circuit only if their isolation numbers are
/// equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isolation(pub u64);

/// The client of a stream, as far as isolation is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant<'a> {
    /// The name of the client's key. Empty if the client needed no key.
    pub key: &'a str,
    /// The address from which the client connects. It tells clients apart only if there is no key.
    pub address: IpAddr,
}

/// Returns the isolation of a stream. `scope` and `session` come from the username. `host` is the host of the target.
pub(super) fn isolation(
    by: IsolateBy,
    tenant: Tenant<'_>,
    scope: &str,
    session: Option<&SessionId>,
    host: &Host,
) -> Isolation {
    // With a key, the address does not matter, because a client may use its key from many machines. Without keys, two
    // clients can be told apart only by their addresses. tor has the same two rules (`IsolateSOCKSAuth`,
    // `IsolateClientAddr`).
    let address = Some(tenant.address).filter(|_| tenant.key.is_empty());
    let within = (by >= IsolateBy::Session).then_some((scope, session));
    let to = (by >= IsolateBy::Target).then_some(host);
    Isolation(seed((tenant.key, address, within, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stream {
        key: &'static str,
        address: &'static str,
        scope: &'static str,
        session: &'static str,
        host: &'static str,
    }

    const BASE: Stream = Stream { key: "team", address: "10.0.0.1", scope: "us", session: "a", host: "shop.com" };

    fn of(by: IsolateBy, stream: &Stream) -> Isolation {
        let session = SessionId::parse(stream.session);
        let tenant = Tenant { key: stream.key, address: stream.address.parse().unwrap() };
        isolation(by, tenant, stream.scope, session.as_ref(), &Host::Name(stream.host.into()))
    }

    #[test]
    fn each_level_keeps_apart_more_than_the_level_before() {
        use IsolateBy::{Key, Session, Target};
        for (other, apart) in [
            (Stream { key: "other", ..BASE }, [true, true, true]),
            (Stream { address: "10.0.0.2", ..BASE }, [false, false, false]),
            (Stream { scope: "de", ..BASE }, [false, true, true]),
            (Stream { session: "b", ..BASE }, [false, true, true]),
            (Stream { host: "other.com", ..BASE }, [false, false, true]),
        ] {
            assert_eq!([Key, Session, Target].map(|by| of(by, &BASE) != of(by, &other)), apart);
        }
    }

    #[test]
    fn without_a_key_the_address_tells_clients_apart() {
        let open = Stream { key: "", ..BASE };
        for by in IsolateBy::ALL {
            assert_ne!(of(by, &open), of(by, &Stream { address: "10.0.0.2", key: "", ..BASE }), "{by:?}");
            assert_ne!(of(by, &open), of(by, &BASE), "{by:?}: a client without a key is none with one");
        }
    }

    #[test]
    fn each_word_is_read() {
        for by in IsolateBy::ALL {
            assert_eq!(IsolateBy::parse(by.as_str()), Some(by));
        }
        assert_eq!((IsolateBy::parse("user"), IsolateBy::default()), (None, IsolateBy::Key));
    }
}
