//! The settings of one listener, in the form that the listener's connections read.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use super::connection_table::ConnectionTable;
use super::meters::ListenerMeters;

/// The settings of one listener. After a reload, new connections use the new settings, and open connections keep the
/// old settings.
#[derive(Clone)]
pub struct ListenerConfig {
    /// The word `shared`, or the name of the route. This text is the `listener` in metrics and in the access line.
    pub label: Arc<str>,
    /// The address that the listener is bound to.
    pub addr: SocketAddr,
    /// The route that this port belongs to. `None` on the shared port.
    pub route: Option<Arc<str>>,
    /// True if every client must send a key. A client that sends none is refused before the gate is called.
    pub demands_key: bool,
    /// True if every client must send a username although no key is needed. Many clients send a username only when the
    /// proxy requires one.
    pub demands_name: bool,
    /// The TLS acceptor of this listener. `None` if clients cannot use TLS to the gateway.
    pub tls: Option<TlsAcceptor>,
    /// The peers that must send a PROXY protocol header at the beginning of a connection. All other peers must not send
    /// a PROXY header.
    pub trusted: Vec<IpNet>,
    /// The time limit from the accept of a connection to the client's first complete request.
    pub opening: Duration,
    /// The time limit for the pause between two plain HTTP requests on one connection.
    pub keep_alive: Duration,
    /// True if the access line contains targets and usernames.
    pub log_targets: bool,
    pub meters: ListenerMeters,
    /// The table that lists the listener's connections while they are open.
    pub connections: Arc<ConnectionTable>,
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerConfig").field("label", &self.label).field("addr", &self.addr).finish_non_exhaustive()
    }
}
