//! Everything that the tasks of the soak share: the private Tor network, the gateway, the outcomes, and the countries of the exits.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use exitgate_testnet::Testbed;

use crate::gateway::Subject;
use crate::outcomes::Outcomes;

pub struct Setup {
    pub bed: Testbed,
    pub gateway: Subject,
    pub outcomes: Outcomes,
    /// The country of each address from which an exit leaves.
    countries: HashMap<IpAddr, String>,
}

impl Setup {
    pub async fn start(program: &Path) -> anyhow::Result<Self> {
        println!("starting a private Tor network");
        let bed = Testbed::start().await?;
        let countries: HashMap<IpAddr, String> =
            bed.network.exits().iter().map(|exit| (exit.outbound.into(), exit.outbound_country.clone())).collect();
        let gateway = Subject::start(program, &bed, countries.len()).await?;
        Ok(Self { bed, gateway, outcomes: Outcomes::default(), countries })
    }

    /// The addresses from which a target may see a request.
    pub fn allowed(&self, geo: Geo) -> HashSet<IpAddr> {
        let fits = |country: &str| match geo {
            Geo::Any => true,
            Geo::Us => country == "US",
            Geo::NonUs => country != "US",
        };
        self.countries.iter().filter(|(_, country)| fits(country)).map(|(ip, _)| *ip).collect()
    }
}

/// Where the exit of a request must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geo {
    Any,
    Us,
    NonUs,
}

impl Geo {
    /// The word of it in a username.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Us => "us",
            Self::NonUs => "nonus",
        }
    }
}
