//! Which relays a fault is about.
//!
//! `all`; `exits` and `guards`; `entered`, the relays that some engine is connected to now; `country:us`; an address; a
//! fingerprint; or a nickname. Several with commas between them are all of them.

use std::collections::HashSet;

use crate::model::{Model, Relay};

/// The relays to choose from.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    pub(crate) model: &'a Model,
    /// Those that engines are connected to.
    pub(crate) entered: &'a HashSet<usize>,
}

impl Network<'_> {
    /// The places of the relays that `who` names, or the `share` of them that falls to this number.
    pub(crate) fn relays(&self, who: &str, share: f64, number: u64) -> HashSet<usize> {
        let words: Vec<&str> = who.split(',').map(str::trim).collect();
        let is_one = |place: usize, relay: &Relay| words.iter().any(|word| self.is_named(word, place, relay));
        let relays = self.model.relays().iter().enumerate();
        let named = relays.filter(|(place, relay)| is_one(*place, relay)).map(|(place, _)| place);
        named.filter(|place| chance(*place as u64, number) < share).collect()
    }

    fn is_named(&self, word: &str, place: usize, relay: &Relay) -> bool {
        match word {
            "all" => true,
            "exits" => relay.is_exit(),
            "guards" => relay.flags.guard && !relay.is_exit(),
            "entered" => self.entered.contains(&place),
            _ => match word.strip_prefix("country:") {
                Some(country) => relay.country.eq_ignore_ascii_case(country),
                None => {
                    relay.nickname == word
                        || relay.hex() == word.trim_start_matches('$')
                        || relay.address.to_string() == word
                        || relay.exit_address.to_string() == word
                }
            },
        }
    }
}

/// A number from 0 to 1 that is the same for the same two numbers, and evenly spread (the finalizer of SplitMix64).
pub(crate) fn chance(one: u64, other: u64) -> f64 {
    let mut mixed = one.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(other.wrapping_mul(0xD1B5_4A32_D192_ED03));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
