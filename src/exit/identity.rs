//! The identity of an exit: the time zone, locale, languages and place that a visitor from this exit would have.
//!
//! A site can compare the time zone and the languages of a browser with the country of its address. So a scraper that
//! drives a browser sets both to match its exit, and asks the gateway for them.
//!
//! There are two sources. `identity/country.rs` is a table of countries that is part of the program. For a country with
//! several time zones it holds the zone of the largest city. `identity/city.rs` reads a city database, if the operator
//! has one. [`Precision`] says which of the two an identity comes from.
//!
//! The country of an exit is decided elsewhere (see [`crate::exit::country`]). If the city database has the address in
//! another country, its city is not used: an identity never contradicts the country that a selector asked for.

mod city;
mod country;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;

pub use city::{BadCities, Cities};

use super::Exit;
use super::country::{Country, CountrySource};
use city::City;
use country::CountryRow;

/// What a visitor from an exit would have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Identity {
    /// The name in the IANA time zone database, such as `Europe/Berlin`.
    pub time_zone: Cow<'static, str>,
    /// The most likely language with the country: `de-DE`.
    pub locale: &'static str,
    /// Languages of the country, the most likely first: `de`, `en`.
    pub languages: &'static [&'static str],
    /// Degrees, north positive.
    pub latitude: f64,
    /// Degrees, east positive.
    pub longitude: f64,
    /// The English name of the city. `None` if only the country is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<Box<str>>,
    /// The code of the first-level division inside the country (ISO 3166-2, `CA` for California). `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Box<str>>,
    pub precision: Precision,
}

/// What the time zone and the coordinates of an [`Identity`] stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// They are those of the largest city of the country.
    Country,
    /// They are those of the exit's own address, from the city database.
    City,
}

impl Precision {
    /// The word in the API and in answer headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::City => "city",
        }
    }
}

/// Finds the identities of exits. All clones share one city database, which can be replaced while the gateway runs.
#[derive(Clone, Debug, Default)]
pub struct Identities(Arc<ArcSwapOption<Cities>>);

impl Identities {
    /// Replaces the city database. With `None`, identities come from the table of countries only.
    pub fn set_cities(&self, cities: Option<Cities>) {
        self.0.store(cities.map(Arc::new));
    }

    /// Returns the identity of an exit. `None` if the country of the exit is unknown, or has no inhabitants.
    pub fn of(&self, exit: &Exit) -> Option<Identity> {
        let ip = exit.ip().or_else(|| exit.listing().announced.first().copied());
        self.at(ip, exit.country())
    }

    /// Returns the identity of an address that is in `country`.
    fn at(&self, ip: Option<IpAddr>, country: Country) -> Option<Identity> {
        let cities = self.0.load();
        let city = ip.zip(cities.as_deref()).and_then(|(ip, cities)| cities.find(ip));
        let city = city.filter(|city| !country.is_known() || city.country == country);
        let country = city.as_ref().map_or(country, |city| city.country);
        Some(identity(country::row(country)?, city))
    }
}

impl CountrySource for Identities {
    fn country_of(&self, ip: IpAddr) -> Option<Country> {
        self.0.load().as_deref()?.find(ip).map(|city| city.country)
    }
}

fn identity(row: &'static CountryRow, city: Option<City>) -> Identity {
    let of_country = Identity {
        time_zone: row.time_zone.into(),
        locale: row.locale,
        languages: &row.languages,
        latitude: row.latitude,
        longitude: row.longitude,
        city: None,
        region: None,
        precision: Precision::Country,
    };
    let Some(City { time_zone, place, name, region, .. }) = city else { return of_country };
    // Some databases have no time zones. In a country with several zones, the zone of the largest city and the
    // coordinates of another city would contradict each other, so neither is taken from the city.
    let time_zone = time_zone.map(Cow::Owned).or((row.zones == 1).then_some(row.time_zone.into()));
    let (Some(time_zone), Some((latitude, longitude))) = (time_zone, place) else {
        return Identity { city: name, region, ..of_country };
    };
    Identity { time_zone, latitude, longitude, city: name, region, precision: Precision::City, ..of_country }
}

#[cfg(test)]
mod tests {
    use exitgate_testnet::mmdb::{Mmdb, Place};

    use super::*;

    fn country(code: &str) -> Country {
        code.parse().unwrap()
    }

    fn identities(places: &[(&str, Place<'_>)]) -> Identities {
        let identities = Identities::default();
        identities.set_cities(Some(Cities::parse(Mmdb::cities(places)).unwrap()));
        identities
    }

    fn at(identities: &Identities, ip: &str, code: &str) -> Option<Identity> {
        identities.at(Some(ip.parse().unwrap()), country(code))
    }

    const LA: Place<'_> = Place {
        country: "US",
        city: Some("Los Angeles"),
        region: Some("CA"),
        time_zone: Some("America/Los_Angeles"),
        coordinates: Some((34.05, -118.24)),
    };

    #[test]
    fn without_cities_the_country_decides() {
        let none = Identities::default();
        let us = at(&none, "192.0.2.1", "US").unwrap();
        assert_eq!((&*us.time_zone, us.locale, us.languages), ("America/New_York", "en-US", &["en"][..]));
        assert_eq!((us.precision, us.city), (Precision::Country, None));
        assert_eq!(none.at(None, Country::UNKNOWN), None);
    }

    #[test]
    fn a_city_of_the_same_country_is_more_precise() {
        let known = identities(&[("192.0.2.0/24", LA), ("2001:db8::/32", LA)]);
        for ip in ["192.0.2.200", "2001:db8::1", "::ffff:192.0.2.1"] {
            let found = at(&known, ip, "US").unwrap();
            assert_eq!((&*found.time_zone, found.precision), ("America/Los_Angeles", Precision::City), "{ip}");
            assert_eq!((found.latitude, found.longitude), (34.05, -118.24));
            assert_eq!((found.city.as_deref(), found.region.as_deref()), (Some("Los Angeles"), Some("CA")));
            assert_eq!(found.locale, "en-US");
        }
        let beside = at(&known, "192.0.3.0", "US").unwrap();
        assert_eq!((beside.city, beside.precision), (None, Precision::Country));
    }

    #[test]
    fn a_city_of_another_country_is_not_used() {
        let known = identities(&[("192.0.2.0/24", LA)]);
        let german = at(&known, "192.0.2.1", "DE").unwrap();
        assert_eq!((&*german.time_zone, german.city, german.locale), ("Europe/Berlin", None, "de-DE"));
        let unknown = at(&known, "192.0.2.1", "??").unwrap();
        assert_eq!((&*unknown.time_zone, unknown.precision), ("America/Los_Angeles", Precision::City));
        assert_eq!(at(&known, "192.0.3.1", "??"), None);
    }

    #[test]
    fn a_city_without_a_time_zone_counts_only_in_countries_with_one_zone() {
        let place = |country| Place { country, time_zone: None, ..LA };
        let known = identities(&[("192.0.2.0/24", place("US")), ("198.51.100.0/24", place("FR"))]);
        let us = at(&known, "192.0.2.1", "US").unwrap();
        assert_eq!((&*us.time_zone, us.latitude, us.precision), ("America/New_York", 40.7142, Precision::Country));
        assert_eq!(us.city.as_deref(), Some("Los Angeles"), "the name is still true");
        let fr = at(&known, "198.51.100.1", "FR").unwrap();
        assert_eq!((&*fr.time_zone, fr.latitude, fr.precision), ("Europe/Paris", 34.05, Precision::City));
        let nowhere = identities(&[("192.0.2.0/24", Place { coordinates: None, ..LA })]);
        assert_eq!(at(&nowhere, "192.0.2.1", "US").unwrap().precision, Precision::Country);
    }

    #[test]
    fn the_databases_can_be_exchanged() {
        let identities = identities(&[("192.0.2.0/24", LA)]);
        let other = identities.clone();
        other.set_cities(None);
        assert_eq!(at(&identities, "192.0.2.1", "US").unwrap().precision, Precision::Country);
    }
}
