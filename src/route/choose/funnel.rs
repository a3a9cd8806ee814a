//! Counts how many exits are left for a username after each condition (filter step). A refusal shows these counts,
//! which the code calls the funnel.
//!
//! For every condition the catalog keeps a set of exits. So to refuse a connection takes little more time than to
//! choose an exit. This matters because scrapers repeat requests that were refused.

use std::sync::Arc;

use super::super::ban::Site;
use super::super::no_plan::{Funnel, NoPlan, Step, Why};
use super::super::pool::picked;
use super::super::selector::Mode;
use super::Chooser;
use crate::exit::capacity::stir;
use crate::exit::catalog::{Bits, Filter};
use crate::exit::country::CountrySet;
use crate::exit::{Exit, ExitId, Source};

/// The largest number of unchecked exits that a refusal lists. The gateway checks the listed exits immediately. Not
/// tuned: the first good exit ends the wait, and among four exits one is quick.
const WORTH_A_CHECK: usize = 4;

/// The number of unchecked exits that are drawn at random, weighted by capacity. Of the drawn exits that have the same
/// address, the refusal lists only one. Not tuned: up to seven relays share an address.
const COMPARED: usize = 64;

impl Chooser<'_> {
    /// Returns a refusal whose reason is the first condition that no exit meets.
    pub(super) fn refuse(&self) -> Box<NoPlan> {
        let (funnel, untested) = self.funnel();
        // If exits are left after all filter steps but none of them was chosen, the reason is that this request has
        // already failed with each of them.
        let why = funnel.reason().unwrap_or(Why::AllFailed);
        Box::new(NoPlan { why, funnel, untested })
    }

    /// Returns a refusal for a reason that the caller knows.
    pub(super) fn refuse_as(&self, why: Why) -> Box<NoPlan> {
        Box::new(NoPlan { why, funnel: self.funnel().0, untested: Vec::new() })
    }

    /// Returns how many exits are left after each filter step, and the exits that fail only because nobody has checked
    /// them.
    pub(in crate::route) fn funnel(&self) -> (Funnel, Vec<ExitId>) {
        let (catalog, selector) = (self.view.catalog, self.need.selector);
        let mut counter = self.count_matching();
        if let Some(exit) = &selector.exit {
            counter.keep(Step::Exit(exit.to_string()), &picked(exit, catalog));
        }
        counter.keep(Step::Running, catalog.alive());
        counter.keep(Step::Port(self.ask.target.port), &self.allowing());
        let untested = self.worth_a_check(&counter.left.and(catalog.untested()));
        counter.keep(Step::Tested, catalog.usable());
        if let Some(check) = &self.need.policy.check {
            counter.keep(Step::Check(check.clone()), catalog.passing(check).unwrap_or(&Bits::default()));
        }
        let strict = selector.mode == Mode::Strict;
        if strict {
            counter.keep(Step::Distinct, catalog.distinct());
        }
        if let Some(bans) = self.bans {
            counter.drop(Step::NotBanned(Site::of(&self.ask.target.host)), &bans.slots(catalog, self.ask.now));
        }
        if strict {
            let taken = self.memory.pins().taken(catalog, self.need.policy.exclusive);
            counter.drop(Step::Free, &taken);
        }
        (Funnel { steps: counter.steps }, untested)
    }

    /// Returns a few of these exits, drawn at random, weighted by capacity. No two of the returned exits announce the
    /// same address.
    fn worth_a_check(&self, exits: &Bits) -> Vec<ExitId> {
        // The minute is part of the seed. So a request that is repeated within a minute lists the same exits and waits
        // for the same checks.
        let minute = self.ask.now.0 / 60_000_000;
        let mut first = self.view.catalog.first(exits, stir(self.holder.seed(), minute), COMPARED);
        first.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        let mut listed: Vec<&Arc<Exit>> = Vec::new();
        for exit in first.into_iter().filter_map(|(_, slot)| self.view.catalog.at(slot)) {
            let address = |exit: &Exit| exit.listing().announced.first().copied();
            let is_new = address(exit).is_none() || listed.iter().all(|other| address(other) != address(exit));
            if is_new && listed.len() < WORTH_A_CHECK {
                listed.push(exit);
            }
        }
        listed.into_iter().map(|exit| exit.id().clone()).collect()
    }

    /// Counts the exits after the first filter steps: source, countries, AS.
    fn count_matching(&self) -> StepCounter {
        let (catalog, selector) = (self.view.catalog, self.need.selector);
        let sources = self.ask.wish.sources();
        let mut filter = Filter { sources, countries: &CountrySet::ALL, asn: None, not_asn: &[], check: None };
        let mut left = catalog.matching(&filter);
        let mut steps = vec![(Step::Known, catalog.len())];
        if left.count() < catalog.len() {
            let names = sources.iter().copied().map(Source::as_str).collect();
            steps.push((Step::Source(names), left.count()));
        }
        if *selector.geo.countries() != CountrySet::ALL {
            filter.countries = selector.geo.countries();
            left = catalog.matching(&filter);
            steps.push((Step::Geo(selector.geo.to_string()), left.count()));
        }
        if let Some(asn) = selector.asn {
            filter.asn = Some(asn);
            left = catalog.matching(&filter);
            steps.push((Step::Asn(asn), left.count()));
        }
        if !selector.not_asn.is_empty() {
            filter.not_asn = &selector.not_asn;
            left = catalog.matching(&filter);
            steps.push((Step::NotAsn(selector.not_asn.clone()), left.count()));
        }
        StepCounter { left, steps }
    }
}

/// The exits that are left, and the number of exits that were left after each filter step.
struct StepCounter {
    left: Bits,
    steps: Vec<(Step, usize)>,
}

impl StepCounter {
    fn keep(&mut self, step: Step, pass: &Bits) {
        self.left.keep(pass);
        self.steps.push((step, self.left.count()));
    }

    fn drop(&mut self, step: Step, fail: &Bits) {
        self.left.drop(fail);
        self.steps.push((step, self.left.count()));
    }
}
