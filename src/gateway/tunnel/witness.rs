//! What plain HTTP shows of a site: runs of refusals become a report.
//!
//! A tunnel hides status codes, so this sees only `http://` answers. One 403 says nothing (the page may be forbidden to
//! everybody); several in a row at one site through one exit, with no other answer between them, say that the site
//! refuses the exit. What follows is not decided here: the report goes to whoever keeps the bans.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::exit::ExitId;
use crate::net::Host;
use crate::route::ban::Site;

/// Refusals in a row that make a report. Arbitrary: more than one forbidden page and its icon.
const RUN: u8 = 5;

/// Pairs of site and exit whose runs are counted at once. Beyond it counting begins anew: a run is short, and memory
/// that clients can fill is not.
const WATCHED: usize = 4096;

/// A site that refuses an exit.
#[derive(Clone, Debug)]
pub struct Report {
    /// The site.
    pub site: Site,
    /// The exit.
    pub exit: ExitId,
    /// Who says so.
    pub why: String,
}

/// Counts refusals and reports runs of them.
#[derive(Debug)]
pub struct Witness {
    runs: Mutex<HashMap<(Site, ExitId), u8>>,
    reports: mpsc::Sender<Report>,
}

impl Witness {
    /// A witness that reports here.
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { runs: Mutex::default(), reports }
    }

    /// One answer of a site through an exit.
    pub fn saw(&self, host: &Host, exit: &ExitId, status: u16) {
        let refused = matches!(status, 403 | 429);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused && runs.is_empty() {
            return;
        }
        let about = (Site::of(host), exit.clone());
        if !refused {
            runs.remove(&about);
            return;
        }
        if runs.len() >= WATCHED {
            runs.clear();
        }
        let run = runs.entry(about.clone()).or_default();
        *run += 1;
        if *run < RUN {
            return;
        }
        runs.remove(&about);
        drop(runs);
        self.report(about.0, about.1, format!("{RUN} answers in a row with status {status} or the like"));
    }

    /// Somebody knows that a site refuses an exit.
    pub fn report(&self, site: Site, exit: ExitId, why: String) {
        // A full queue means that bans are being made as fast as they can be; the next run reports again.
        let _ = self.reports.try_send(Report { site, exit, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_run_is_reported() {
        let (reports, mut heard) = mpsc::channel(4);
        let witness = Witness::new(reports);
        let (shop, exit) = (Host::parse("www.shop.example").unwrap(), ExitId::Direct);
        for _ in 0..3 {
            (1..RUN).for_each(|_| witness.saw(&shop, &exit, 403));
            witness.saw(&shop, &exit, 200);
        }
        assert!(heard.try_recv().is_err());
        (0..RUN).for_each(|_| witness.saw(&shop, &exit, 429));
        let report = heard.try_recv().unwrap();
        assert_eq!((report.site, report.exit), (Site::of(&Host::parse("shop.example").unwrap()), exit));
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let (reports, _heard) = mpsc::channel(1);
        let witness = Witness::new(reports);
        for i in 0..3 * WATCHED {
            witness.saw(&Host::parse(&format!("s{i}.example")).unwrap(), &ExitId::Direct, 403);
        }
        assert!(witness.runs.lock().unwrap().len() <= WATCHED);
    }
}
