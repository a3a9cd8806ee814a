//! What engines and the world say to one another, over the world's unix socket.
//!
//! Each connection begins with one line of JSON, a [`Hello`]. An engine's goes on with lines of [`Ask`] and [`Tell`] in
//! both directions. A stream's is answered by one line, a [`Fate`]; if that is [`Fate::Open`], what follows are bytes: as
//! they are towards the target, in frames towards the client (four bytes of length, big endian, then that many bytes; a
//! length of 0 is the end, with one byte of reason behind it). A stream whose connection closes without such an end was cut.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fault::Order;

/// The environment variable that tells an engine where its world listens.
pub const WORLD: &str = "SIMTOR_WORLD";

/// The environment variable with the address that relays see an engine come from, for worlds with several clients.
pub const CLIENT: &str = "SIMTOR_CLIENT";

/// A circuit's number, as its engine counts.
pub(crate) type CircuitId = u32;

/// The first line of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "hello", rename_all = "snake_case")]
pub(crate) enum Hello {
    /// An engine.
    Engine {
        /// Its process.
        pid: u32,
        /// The name of the address that it comes from.
        client: String,
        /// Its bridges' fingerprints.
        bridges: Vec<String>,
    },
    /// One stream of an engine.
    Stream {
        /// The engine, as the world has called it.
        engine: u32,
        /// The circuit; none asks for an onion service.
        circuit: Option<CircuitId>,
        /// What is asked for.
        what: Wanted,
    },
    /// An onion service, as long as this connection is open.
    Onion {
        /// Its name.
        host: String,
        /// Its port.
        port: u16,
        /// Where it leads.
        target: String,
    },
    /// What program the world wants to be run.
    Version,
    /// A fault to happen.
    Order(Order),
    /// The end of one fault, or of all.
    Clear {
        /// Which.
        id: Option<u64>,
    },
    /// The faults that are in force.
    Orders,
    /// The figures so far.
    Stats,
    /// Who and where the relays are.
    Relays,
}

/// What a stream is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    /// A connection.
    Connect {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The address of a name.
    Resolve(String),
    /// The name of an address.
    ResolvePtr(IpAddr),
}

/// What becomes of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It is open, to this address.
    Open(IpAddr),
    /// The name has this address.
    Address(IpAddr),
    /// The address has this name.
    Name(String),
    /// The exit ended it, with this reason.
    End(u8),
    /// There is no such onion service.
    NoService,
}

/// What an engine asks of the world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// A circuit over these relays; over some that the world chooses if there are none.
    Extend {
        /// Its number.
        circuit: CircuitId,
        /// Fingerprints.
        path: Vec<String>,
    },
    /// The end of a circuit.
    Close {
        /// Its number.
        circuit: CircuitId,
    },
    /// The directory, by way of a guard.
    Fetch {
        /// The guard; one that the world chooses if there is none.
        guard: Option<String>,
        /// So many microdescriptors are wanted, and not the consensus.
        microdescs: Option<usize>,
    },
    /// All connections to relays are closed, as `DisableNetwork 1` does.
    Disconnect,
    /// The process is awake: said each second.
    Awake,
}

/// Why a circuit or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    /// tor's word for it.
    pub(crate) reason: String,
    /// A relay said so.
    pub(crate) remote: bool,
}

impl Gone {
    /// Ended on this side.
    pub(crate) fn here(reason: &str) -> Self {
        Self { reason: reason.to_owned(), remote: false }
    }

    /// Ended by a relay.
    pub(crate) fn there(reason: &str) -> Self {
        Self { reason: reason.to_owned(), remote: true }
    }
}

/// How a connection to a relay stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conn {
    /// It is being made.
    Launched,
    /// It works.
    Connected,
    /// It could not be made, with tor's word for the reason.
    Failed(String),
    /// It ended, with tor's word for the reason.
    Closed(String),
}

/// What the world tells an engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub(crate) enum Tell {
    /// The first line of all.
    Welcome {
        /// What the world calls the engine.
        engine: u32,
        /// By what all times are divided.
        speed: f64,
        /// How the engine is to behave.
        conduct: Conduct,
    },
    /// A connection to a relay changed.
    Conn {
        /// The relay's fingerprint.
        relay: String,
        /// How it stands.
        conn: Conn,
    },
    /// A circuit reaches so many relays.
    Extended {
        /// Its number.
        circuit: CircuitId,
        /// The relays it reaches, from the first on.
        path: Vec<String>,
        /// It is complete.
        built: bool,
    },
    /// A circuit ended.
    Gone {
        /// Its number.
        circuit: CircuitId,
        /// Why.
        gone: Gone,
    },
    /// A guard serves the directory.
    Fetched(Edition),
    /// The directory could not be fetched.
    NotFetched {
        /// The guard that was asked.
        guard: String,
    },
    /// The world chose this guard for a fetch.
    Asking {
        /// Its fingerprint.
        guard: String,
    },
    /// The engine is to behave like this from now on.
    Conduct(Conduct),
    /// End at once, as a process that crashes does.
    Crash,
    /// Close every control connection.
    CutControl,
}

/// One edition of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edition {
    /// The file with the consensus.
    pub(crate) consensus: PathBuf,
    /// The file with the microdescriptors.
    pub(crate) microdescs: PathBuf,
    /// Microdescriptors are among it.
    pub(crate) complete: bool,
    /// Fingerprints of relays whose microdescriptor is missing.
    pub(crate) missing: Vec<String>,
}

/// What faults make an engine do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conduct {
    /// Milliseconds that every control answer waits.
    pub(crate) control_delay_ms: u64,
    /// Seconds that the clock is ahead; negative if it is behind.
    pub(crate) clock_off: i64,
    /// The version that it says it is.
    pub(crate) version: String,
}
