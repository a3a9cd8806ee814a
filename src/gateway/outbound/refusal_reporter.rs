//! Reports sites that refuse exits. The gateway sees such refusals only in answers of plain HTTP, because it cannot
//! read other answers.
//!
//! [`RefusalDetector`] decides from many answers whether a site refuses an exit. The reports are sent to a channel.
//! `app` reads this channel and bans the exit for the site. (A report that a client sends makes a ban immediately: see
//! `outbound/rotate.rs`.)

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::exit::{ExitId, Moment};
use crate::net::Host;
use crate::route::ban::Site;
use crate::route::refusal_detector::RefusalDetector;

/// A report that a site refuses an exit.
#[derive(Clone, Debug)]
pub struct Report {
    pub site: Site,
    pub exit: ExitId,
    /// The reason, in words for people.
    pub why: String,
}

/// Makes reports from the answers of sites.
#[derive(Debug)]
pub struct RefusalReporter {
    detector: Mutex<RefusalDetector>,
    reports: mpsc::Sender<Report>,
}

impl RefusalReporter {
    /// Makes a reporter that sends its reports to the channel `reports`.
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { detector: Mutex::default(), reports }
    }

    /// Records the HTTP status of one answer that a site sent through this exit.
    pub fn observe(&self, host: &Host, exit: &ExitId, status: u16, now: Moment) {
        let refused = matches!(status, 403 | 429);
        let heard = self.detector.lock().unwrap_or_else(PoisonError::into_inner).observe(host, exit, refused, now);
        let Some((site, exits)) = heard else { return };
        for exit in exits {
            self.report(site.clone(), exit, "it refuses real requests in a row, and serves other exits".to_owned());
        }
    }

    fn report(&self, site: Site, exit: ExitId, why: String) {
        // If the channel is full, this report is lost. This does no harm, because later refusals by this site cause a
        // new report.
        let _ = self.reports.try_send(Report { site, exit, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Fingerprint;

    #[test]
    fn a_refusal_that_other_exits_do_not_meet_is_reported() {
        let (reports, mut received) = mpsc::channel(4);
        let refusals = RefusalReporter::new(reports);
        let (shop, refused) = (Host::parse("www.shop.example").unwrap(), ExitId::Tor(Fingerprint([1; 20])));
        (0..20).for_each(|_| refusals.observe(&shop, &refused, 429, Moment(1)));
        assert!(received.try_recv().is_err());
        refusals.observe(&shop, &ExitId::Direct, 404, Moment(1));
        let report = received.try_recv().unwrap();
        assert_eq!((report.site, report.exit), (Site::of(&Host::parse("shop.example").unwrap()), refused));
        assert!(received.try_recv().is_err());
    }
}
