//! The settings of one listener, as its connections read them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use super::connection_table::ConnectionTable;
use super::meters::ListenerMeters;

/// One listener's settings. A reload gives new connections new ones; old connections keep theirs.
#[derive(Clone)]
pub struct ListenerConfig {
    /// `shared`, or the name of the route: the `listener` of metrics and of the access line.
    pub label: Arc<str>,
    /// The address that is bound.
    pub addr: SocketAddr,
    /// The route whose own port this is; `None` on the shared port.
    pub route: Option<Arc<str>>,
    /// Nobody is let in without a key. A client that sends none is refused before the gate is asked.
    pub demands_key: bool,
    /// Every client must send a username, though no key is needed: many clients send one only when they are asked.
    pub demands_name: bool,
    /// TLS between the client and the gateway, if it is offered.
    pub tls: Option<TlsAcceptor>,
    /// Peers that must begin with a PROXY protocol header; others may not send one.
    pub trusted: Vec<IpNet>,
    /// How long a client has from accept to a complete request.
    pub opening: Duration,
    /// How long a connection may be idle between two plain HTTP requests.
    pub keep_alive: Duration,
    /// Whether the access line names targets and usernames.
    pub log_targets: bool,
    pub meters: ListenerMeters,
    /// Where its connections are listed while they are open.
    pub connections: Arc<ConnectionTable>,
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerConfig").field("label", &self.label).field("addr", &self.addr).finish_non_exhaustive()
    }
}
