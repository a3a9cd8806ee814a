//! Events: which there are, and in which words tor tells them.

/// What a controller may ask to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Circ,
    CircMinor,
    CircBw,
    Stream,
    StreamBw,
    OrConn,
    Bw,
    Guard,
    NewConsensus,
    StatusGeneral,
    StatusClient,
    Liveness,
    HsDesc,
    Signal,
    ConfChanged,
    /// One that tor knows and that never happens here.
    Other,
}

/// tor's names of events, and those of them that happen here.
pub(super) const NAMES: &[(&str, Kind)] = &[
    ("CIRC", Kind::Circ),
    ("CIRC_MINOR", Kind::CircMinor),
    ("STREAM", Kind::Stream),
    ("ORCONN", Kind::OrConn),
    ("BW", Kind::Bw),
    ("DEBUG", Kind::Other),
    ("INFO", Kind::Other),
    ("NOTICE", Kind::Other),
    ("WARN", Kind::Other),
    ("ERR", Kind::Other),
    ("NEWDESC", Kind::Other),
    ("ADDRMAP", Kind::Other),
    ("DESCCHANGED", Kind::Other),
    ("NS", Kind::Other),
    ("STATUS_GENERAL", Kind::StatusGeneral),
    ("STATUS_CLIENT", Kind::StatusClient),
    ("STATUS_SERVER", Kind::Other),
    ("GUARD", Kind::Guard),
    ("STREAM_BW", Kind::StreamBw),
    ("CLIENTS_SEEN", Kind::Other),
    ("NEWCONSENSUS", Kind::NewConsensus),
    ("BUILDTIMEOUT_SET", Kind::Other),
    ("SIGNAL", Kind::Signal),
    ("CONF_CHANGED", Kind::ConfChanged),
    ("CONN_BW", Kind::Other),
    ("CELL_STATS", Kind::Other),
    ("CIRC_BW", Kind::CircBw),
    ("TRANSPORT_LAUNCHED", Kind::Other),
    ("HS_DESC", Kind::HsDesc),
    ("HS_DESC_CONTENT", Kind::Other),
    ("NETWORK_LIVENESS", Kind::Liveness),
];

/// The event of this name, whatever its case.
pub(super) fn find(name: &str) -> Option<Kind> {
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// tor's word for the reason of a stream's end; none for a number that has none.
pub(super) fn end_word(reason: u16) -> Option<&'static str> {
    Some(match reason {
        1 => "MISC",
        2 => "RESOLVEFAILED",
        3 => "CONNECTREFUSED",
        4 => "EXITPOLICY",
        5 => "DESTROY",
        6 => "DONE",
        7 => "TIMEOUT",
        8 => "NOROUTE",
        9 => "HIBERNATING",
        10 => "INTERNAL",
        11 => "RESOURCELIMIT",
        12 => "CONNRESET",
        13 => "TORPROTOCOL",
        14 => "NOTDIRECTORY",
        257 => "CANT_ATTACH",
        258 => "NET_UNREACHABLE",
        259 => "SOCKSPROTOCOL",
        266 => "PRIVATE_ADDR",
        _ => return None,
    })
}

/// Why a stream ended: a number, and whether the exit said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) number: u16,
    pub(super) remote: bool,
}

/// The bit that tor adds to a number that came from the exit.
const REMOTE: u16 = 512;

impl Reason {
    pub(super) fn here(number: u8) -> Self {
        Self { number: number.into(), remote: false }
    }

    pub(super) fn there(number: u8) -> Self {
        Self { number: number.into(), remote: true }
    }

    /// Its part of an event's line.
    pub(super) fn field(self) -> String {
        let word = match end_word(self.number) {
            Some(word) => word.to_owned(),
            // With the space in front that tor writes, too.
            None => format!(" UNKNOWN_{}", self.number | if self.remote { REMOTE } else { 0 }),
        };
        if self.remote { format!(" REASON=END REMOTE_REASON={word}") } else { format!(" REASON={word}") }
    }

    /// The code of the SOCKS answer.
    pub(super) fn socks(self) -> u8 {
        match self.number {
            2 | 8 => 4,
            3 | 6 | 12 => 5,
            4 => 2,
            7 => 6,
            258 => 3,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_tors_words() {
        for (reason, field, socks) in [
            (Reason::there(1), " REASON=END REMOTE_REASON=MISC", 1),
            (Reason::here(7), " REASON=TIMEOUT", 6),
            (Reason::there(250), " REASON=END REMOTE_REASON= UNKNOWN_762", 1),
            (Reason::here(5), " REASON=DESTROY", 1),
            (Reason::there(2), " REASON=END REMOTE_REASON=RESOLVEFAILED", 4),
        ] {
            assert_eq!((reason.field().as_str(), reason.socks()), (field, socks));
        }
        assert_eq!((find("circ_bw"), find("FOO")), (Some(Kind::CircBw), None));
    }
}
