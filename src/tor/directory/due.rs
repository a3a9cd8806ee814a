//! Decides whether the directory must be read again. Pure: no I/O, and times are passed in.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::netdir::Netdir;

/// If more than one relay in this number has no microdescriptor, the directory is soon read again. 100 means 1 %.
const MISSING_PART: usize = 100;

/// The pause before a directory with missing microdescriptors is read again for the first time: 60 s if many are
/// missing, 600 s if few are. Many microdescriptors are missing when a consensus has just arrived, and tor fetches them
/// within a minute. If few are missing, they usually cannot be fetched from any relay.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// The longest pause before the directory is read again for missing microdescriptors. After an hour there is a new
/// consensus anyway.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The pause between two reads of the directory of an attached tor that does not tell which consensus it has.
const BLIND: Duration = Duration::from_secs(3600);

/// The facts about a directory that was read which decide when to read it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edition {
    pub(super) valid_after: Option<SystemTime>,
    pub(super) relays: usize,
    /// The number of relays without a microdescriptor.
    pub(super) missing: usize,
}

impl Edition {
    pub(super) fn of(dir: &Netdir) -> Self {
        Self { valid_after: dir.valid_after(), relays: dir.len(), missing: dir.missing_microdescs() }
    }

    pub(super) fn is_better_than(self, other: Self) -> bool {
        self.valid_after > other.valid_after || (self.valid_after == other.valid_after && self.missing < other.missing)
    }

    fn pause(self) -> Duration {
        if self.missing > self.relays / MISSING_PART { PAUSES.0 } else { PAUSES.1 }
    }
}

/// The size and the time of a file, as the file system reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) modified: SystemTime,
    pub(super) bytes: u64,
}

/// The state of the files of a directory. A missing file is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) consensus: Option<FileState>,
    /// The time from which the consensus is valid, as the consensus itself states it.
    pub(super) valid_after: Option<SystemTime>,
    pub(super) microdescs: [Option<FileState>; 2],
}

/// Decides when the directory is read again because microdescriptors are missing. The pause before each further read
/// doubles, until a new consensus arrives.
#[derive(Debug, Default)]
pub(super) struct Repair {
    valid_after: Option<SystemTime>,
    tries: u32,
    next: Option<Instant>,
    /// When a directory was last read, even if the read found nothing.
    read: Option<Instant>,
}

impl Repair {
    /// Records that the directory `found` was read at the time `now`.
    pub(super) fn note(&mut self, found: Edition, now: Instant) {
        if self.valid_after != found.valid_after {
            (self.valid_after, self.tries) = (found.valid_after, 0);
        }
        let pause = found.pause().saturating_mul(1 << self.tries.min(16)).min(PAUSE_MAX);
        self.tries = self.tries.saturating_add(1);
        (self.next, self.read) = (Some(now + pause), Some(now));
    }

    fn is_due(&self, copy: Edition, now: Instant) -> bool {
        copy.missing > 0 && self.next.is_none_or(|next| next <= now)
    }
}

/// Decides whether to read the directory in an engine's folder. `files` is the state of the files now, and `last` is
/// their state when they were last read.
pub(super) fn in_folder(
    copy: Option<Edition>,
    files: Files,
    last: Option<Files>,
    repair: &Repair,
    now: Instant,
) -> bool {
    let Some(copy) = copy else { return true };
    // This is also true for the files of an engine that were never read, because they may contain microdescriptors that
    // the files of other engines lack.
    let changed = last != Some(files);
    let is_newer = files.valid_after > copy.valid_after;
    let may_repair = files.valid_after == copy.valid_after && repair.is_due(copy, now);
    changed && (is_newer || may_repair)
}

/// Decides whether to read the directory of an attached tor over its control port. `offered` is the time from which the
/// consensus of this tor is valid. `None` if tor does not tell the time.
pub(super) fn at_control_port(
    copy: Option<Edition>,
    offered: Option<SystemTime>,
    repair: &Repair,
    now: Instant,
) -> bool {
    let Some(copy) = copy else { return true };
    match offered {
        Some(_) if offered == copy.valid_after => repair.is_due(copy, now),
        Some(_) => offered > copy.valid_after,
        None => repair.read.is_none_or(|read| now.duration_since(read) >= BLIND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn hour(hour: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600))
    }

    fn edition(at: u64, missing: usize) -> Edition {
        Edition { valid_after: hour(at), relays: 1000, missing }
    }

    fn files(at: u64, bytes: u64) -> Files {
        let file = |bytes| Some(FileState { modified: SystemTime::UNIX_EPOCH, bytes });
        Files { consensus: file(1), valid_after: hour(at), microdescs: [file(1), file(bytes)] }
    }

    fn repair(found: &[Edition], now: Instant) -> Repair {
        let mut repair = Repair::default();
        found.iter().for_each(|found| repair.note(*found, now));
        repair
    }

    #[test]
    fn a_newer_consensus_is_read_at_once() {
        let now = Instant::now();
        let repair = repair(&[edition(1, 0)], now);
        let due = |copy, files, last| in_folder(copy, files, last, &repair, now);
        assert!(due(None, files(1, 1), Some(files(1, 1))), "without a directory");
        assert!(due(Some(edition(1, 0)), files(2, 1), None));
        assert!(due(Some(edition(1, 0)), files(2, 1), Some(files(1, 1))));
        assert!(!due(Some(edition(1, 0)), files(2, 1), Some(files(2, 1))), "these files were read, and were no better");
        assert!(!due(Some(edition(2, 0)), files(1, 1), None), "an older one");
        assert!(!due(Some(edition(1, 0)), files(1, 2), None), "nothing is missing");
    }

    #[test]
    fn repairs_wait_longer_and_longer_until_the_next_consensus() {
        let now = Instant::now();
        let due = |missing, repair: &Repair, after| {
            in_folder(Some(edition(1, missing)), files(1, 2), Some(files(1, 1)), repair, now + after)
        };
        for (missing, tries, pause) in [
            (11, 1, MINUTE),
            (11, 2, 2 * MINUTE),
            (11, 4, 8 * MINUTE),
            (11, 40, 60 * MINUTE),
            (10, 1, 10 * MINUTE),
            (10, 2, 20 * MINUTE),
            (1, 4, 60 * MINUTE),
        ] {
            let repair = repair(&vec![edition(1, missing); tries], now);
            assert!(!due(missing, &repair, pause - Duration::from_millis(1)), "{missing} {tries}");
            assert!(due(missing, &repair, pause), "{missing} {tries}");
        }
        let next_hour = repair(&[edition(0, 11), edition(0, 11), edition(1, 11)], now);
        assert!(due(11, &next_hour, MINUTE));
        let unchanged = in_folder(Some(edition(1, 11)), files(1, 1), Some(files(1, 1)), &next_hour, now + 60 * MINUTE);
        assert!(!unchanged, "no file has changed");
        assert!(in_folder(Some(edition(1, 11)), files(1, 1), None, &Repair::default(), now));
    }

    #[test]
    fn a_tor_elsewhere_is_asked_when_it_has_a_newer_consensus() {
        let now = Instant::now();
        let repair = repair(&[edition(1, 20)], now);
        let due = |copy, offered, after| at_control_port(copy, offered, &repair, now + after);
        assert!(due(None, None, Duration::ZERO) && due(None, hour(1), Duration::ZERO));
        assert!(due(Some(edition(1, 0)), hour(2), Duration::ZERO));
        assert!(!due(Some(edition(2, 0)), hour(1), 99 * MINUTE));
        assert!(!due(Some(edition(1, 0)), hour(1), 99 * MINUTE), "nothing is missing");
        assert!(!due(Some(edition(1, 20)), hour(1), MINUTE / 2) && due(Some(edition(1, 20)), hour(1), MINUTE));
        assert!(!due(Some(edition(1, 20)), None, 59 * MINUTE) && due(Some(edition(1, 0)), None, 60 * MINUTE));
        assert!(at_control_port(Some(edition(1, 0)), None, &Repair::default(), now));
    }

    #[test]
    fn a_later_or_more_complete_edition_is_better() {
        let best = edition(2, 3);
        for (other, want) in [
            (edition(1, 0), true),
            (edition(2, 4), true),
            (edition(2, 3), false),
            (edition(2, 2), false),
            (edition(3, 9), false),
        ] {
            assert_eq!(best.is_better_than(other), want, "{other:?}");
        }
    }
}
