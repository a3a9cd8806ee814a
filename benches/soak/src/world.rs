//! The private network, the gateway on it, and what is true of the exits.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;

use exitgate_testnet::Testbed;

use crate::gateway::Gateway;
use crate::tally::Tally;

/// Everything that the tasks share.
pub struct World {
    pub bed: Testbed,
    pub gateway: Gateway,
    pub tally: Tally,
    /// The country of every address that an exit leaves from.
    countries: HashMap<IpAddr, String>,
}

impl World {
    pub async fn start(program: PathBuf) -> anyhow::Result<Self> {
        println!("starting a private Tor network");
        let bed = Testbed::start().await?;
        let countries: HashMap<IpAddr, String> =
            bed.network.exits().iter().map(|exit| (exit.outbound.into(), exit.outbound_country.clone())).collect();
        let gateway = Gateway::start(program, &bed, countries.len()).await?;
        Ok(Self { bed, gateway, tally: Tally::default(), countries })
    }

    /// The addresses that a user may be seen from.
    pub fn allowed(&self, geo: Geo) -> HashSet<IpAddr> {
        let fits = |country: &str| match geo {
            Geo::Any => true,
            Geo::Us => country == "US",
            Geo::NonUs => country != "US",
        };
        self.countries.iter().filter(|(_, country)| fits(country)).map(|(ip, _)| *ip).collect()
    }
}

/// What a username begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geo {
    Any,
    Us,
    NonUs,
}

impl Geo {
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Us => "us",
            Self::NonUs => "nonus",
        }
    }
}
