//! Combines consensus and microdescriptors: sorts relays, matches microdescriptors, and stores equal values only once.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::mem::take;

use sha2::{Digest as _, Sha256};

use super::consensus::{Consensus, Digest, cut};
use super::microdesc::{Microdesc, Microdescs};
use super::weight::{Cumulative, Position, Weights};
use super::{BadNetdir, Entry, Family, Netdir, Nickname, Relay, Skipped, find};
use crate::exit::Fingerprint;
use crate::exit::policy::PortPolicy;

/// The most members of one family that are read. The largest family of the public network has about 1,000 members.
const MAX_MEMBERS: usize = 8192;

pub(super) fn build(consensus: impl BufRead, microdescs: impl BufRead) -> io::Result<Result<Netdir, BadNetdir>> {
    let mut consensus = Consensus::read(consensus)?;
    let (relays, digests) = sort(take(&mut consensus.relays), &mut consensus.skipped);
    if relays.is_empty() {
        return Ok(Err(BadNetdir::NoRelays));
    }
    let mut builder = Builder::new(relays);
    builder.add_all(Microdescs::new(microdescs), &digests, &mut consensus.skipped)?;
    Ok(Ok(builder.finish(consensus)))
}

/// Sorts relays by fingerprint and drops repeated ones. Also returns, sorted by digest, which microdescriptor belongs
/// to which relay.
fn sort(mut found: Vec<(Entry, Option<Digest>)>, skipped: &mut Skipped) -> (Vec<Entry>, Vec<(Digest, u32)>) {
    let before = found.len();
    found.sort_by_key(|(entry, _)| entry.fingerprint);
    found.dedup_by_key(|(entry, _)| entry.fingerprint);
    skipped.relays += (before - found.len()) as u32;
    let numbered = found.iter().zip(0..);
    let mut digests: Vec<_> =
        numbered.filter_map(|((_, digest), index)| digest.map(|digest| (digest, index))).collect();
    digests.sort_unstable();
    (found.into_iter().map(|(entry, _)| entry).collect(), digests)
}

/// A list in which each different value is stored only once, and a map from the digest of a value's text to the value's
/// index in the list. Family texts have up to 40 kB each, so the map stores digests. The empty text has index 0.
struct Interned<T> {
    values: Vec<T>,
    numbers: HashMap<Digest, u32>,
}

impl<T: Default> Interned<T> {
    fn new() -> Self {
        Self { values: vec![T::default()], numbers: HashMap::new() }
    }

    fn number(&mut self, text: &str, read: impl FnOnce(&str) -> T) -> u32 {
        if text.is_empty() {
            return 0;
        }
        *self.numbers.entry(cut(Sha256::digest(text).into())).or_insert_with(|| {
            self.values.push(read(text));
            (self.values.len() - 1) as u32
        })
    }
}

struct Builder {
    relays: Vec<Entry>,
    policies: Interned<PortPolicy>,
    families: Interned<Family>,
    family_ids: Interned<Box<[u32]>>,
    /// The text of a family to which relays have proved that they belong → the number of that family.
    id_numbers: HashMap<Box<str>, u32>,
}

impl Builder {
    fn new(relays: Vec<Entry>) -> Self {
        Self {
            relays,
            policies: Interned::new(),
            families: Interned::new(),
            family_ids: Interned::new(),
            id_numbers: HashMap::new(),
        }
    }

    fn add_all(
        &mut self,
        mut microdescs: Microdescs<impl BufRead>,
        digests: &[(Digest, u32)],
        skipped: &mut Skipped,
    ) -> io::Result<()> {
        while let Some(microdesc) = microdescs.next()? {
            let first = digests.partition_point(|(digest, _)| *digest < microdesc.digest);
            let mut owners = digests[first..].iter().take_while(|(digest, _)| *digest == microdesc.digest).peekable();
            skipped.microdescs += u32::from(owners.peek().is_none());
            for (_, owner) in owners {
                self.add(*owner as usize, microdesc, skipped);
            }
        }
        skipped.malformed += microdescs.malformed;
        skipped.unknown += microdescs.unknown;
        Ok(())
    }

    fn add(&mut self, owner: usize, microdesc: &Microdesc, skipped: &mut Skipped) {
        let Self { relays, policies, families, family_ids, id_numbers } = self;
        let mut policy = |text: &str| {
            policies.number(text, |text| {
                text.parse().unwrap_or_else(|_| {
                    skipped.malformed += 1;
                    PortPolicy::reject_all() // like tor: a policy that cannot be read rejects everything
                })
            })
        };
        let (policy, policy_v6) = (policy(&microdesc.policy), policy(&microdesc.policy_v6));
        let family = families.number(&microdesc.family, |text| family(text, relays));
        let family_ids = family_ids.number(&microdesc.family_ids, |text| proven(text, id_numbers));
        let entry = &mut relays[owner];
        *entry = Entry {
            known: microdesc.has_ntor,
            v6: microdesc.v6.filter(|_| entry.v6.is_unspecified()).unwrap_or(entry.v6),
            policy,
            policy_v6,
            family,
            family_ids,
            ..entry.clone()
        };
    }

    fn finish(self, consensus: Consensus) -> Netdir {
        let mut params = consensus.params;
        params.sort_by(|a, b| a.0.cmp(&b.0));
        params.dedup_by(|a, b| a.0 == b.0);
        let missing = self.relays.iter().filter(|entry| !entry.known).count();
        let mut dir = Netdir {
            relays: self.relays.into(),
            policies: self.policies.values.into(),
            families: self.families.values.into(),
            family_ids: self.family_ids.values.into(),
            params: params.into(),
            lifetime: consensus.lifetime,
            clients: consensus.clients,
            weights: Weights::new(std::iter::empty(), 1),
            middles: Cumulative::default(),
            missing,
            skipped: consensus.skipped,
        };
        let scale = dir.param_or("bwweightscale", 10_000, 1..=i32::MAX);
        dir.weights = Weights::new(super::text::key_values(&consensus.weights), scale);
        let in_the_middle = |relay: Relay<'_>| if relay.is_usable() { relay.weight(Position::Middle) } else { 0 };
        dir.middles = Cumulative::new(dir.relays().map(in_the_middle));
        dir
    }
}

/// Parses a declared family. A member is `$FINGERPRINT`, optionally followed by `=nickname` or `~nickname`, or only a
/// nickname. Members that are not listed in the directory are dropped.
fn family(text: &str, relays: &[Entry]) -> Family {
    let (mut members, mut names) = (Vec::new(), Vec::new());
    for member in text.split_ascii_whitespace().take(MAX_MEMBERS) {
        let id = member.split(['=', '~']).next().unwrap_or(member);
        match id.parse::<Fingerprint>() {
            Ok(fingerprint) => members.extend(find(relays, &fingerprint).map(|index| index as u32)),
            Err(_) if (1..=Nickname::MAX).contains(&member.len()) => names.push(member.into()),
            Err(_) => {}
        }
    }
    members.sort_unstable();
    members.dedup();
    Family { members: members.into(), names: names.into() }
}

fn proven(text: &str, numbers: &mut HashMap<Box<str>, u32>) -> Box<[u32]> {
    let mut ids: Vec<u32> = text
        .split_ascii_whitespace()
        .take(MAX_MEMBERS)
        .map(|id| {
            let next = numbers.len() as u32;
            numbers.get(id).copied().unwrap_or_else(|| {
                numbers.insert(id.into(), next);
                next
            })
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into()
}
