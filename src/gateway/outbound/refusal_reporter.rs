//! Who tells of sites that refuse exits: plain HTTP, whose answers we see, and scrapers, who see all of them.
//!
//! What answers say is weighed in [`RefusalDetector`]; a scraper's word is taken. Both become reports, and what follows from a
//! report is not decided here: it goes to whoever keeps the bans.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::exit::{ExitId, Moment};
use crate::net::Host;
use crate::route::ban::Site;
use crate::route::refusal_detector::RefusalDetector;

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

/// Hears, and reports.
#[derive(Debug)]
pub struct RefusalReporter {
    detector: Mutex<RefusalDetector>,
    reports: mpsc::Sender<Report>,
}

impl RefusalReporter {
    /// A witness that reports here.
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { detector: Mutex::default(), reports }
    }

    /// One answer of a site through an exit.
    pub fn saw(&self, host: &Host, exit: &ExitId, status: u16, now: Moment) {
        let refused = matches!(status, 403 | 429);
        let heard = self.detector.lock().unwrap_or_else(PoisonError::into_inner).observe(host, exit, refused, now);
        let Some((site, exits)) = heard else { return };
        for exit in exits {
            self.report(site.clone(), exit, "it refuses real requests in a row, and serves other exits".to_owned());
        }
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
    use crate::exit::Fingerprint;

    #[test]
    fn refusals_that_others_do_not_meet_are_reported() {
        let (reports, mut heard) = mpsc::channel(4);
        let refusals = RefusalReporter::new(reports);
        let (shop, refused) = (Host::parse("www.shop.example").unwrap(), ExitId::Tor(Fingerprint([1; 20])));
        (0..20).for_each(|_| refusals.saw(&shop, &refused, 429, Moment(1)));
        assert!(heard.try_recv().is_err());
        refusals.saw(&shop, &ExitId::Direct, 404, Moment(1));
        let report = heard.try_recv().unwrap();
        assert_eq!((report.site, report.exit), (Site::of(&Host::parse("shop.example").unwrap()), refused));
        assert!(heard.try_recv().is_err());
    }
}
