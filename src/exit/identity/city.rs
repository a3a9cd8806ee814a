//! City databases in the MaxMind DB format (`.mmdb`): GeoLite2-City, GeoIP2-City, DB-IP City and others with the same
//! field names.
//!
//! The whole file is kept in memory, because mapping a file into memory is unsafe: another program could change it
//! during a look-up. GeoLite2-City needs about 60 MB.

use std::fmt;
use std::net::IpAddr;

use maxminddb::geoip2;
use maxminddb::{MaxMindDbError, Reader};

use crate::exit::country::Country;

/// How many records of a new database are searched for a city or a place. A city database has one in nearly every
/// record, and a database of countries or networks has none at all. Not tuned.
const SEARCHED: usize = 10_000;

/// A database of cities by address.
pub struct Cities {
    reader: Reader<Vec<u8>>,
    /// False for a database that only has countries.
    has_cities: bool,
}

/// What a database says about one address.
#[derive(Debug, PartialEq)]
pub(super) struct City {
    pub(super) country: Country,
    pub(super) name: Option<Box<str>>,
    pub(super) region: Option<Box<str>>,
    pub(super) time_zone: Option<String>,
    /// Latitude and longitude in degrees.
    pub(super) place: Option<(f64, f64)>,
}

/// Why a file cannot be used as a city database.
#[derive(Debug, thiserror::Error)]
pub enum BadCities {
    #[error("is not a MaxMind DB file: {0}")]
    Format(MaxMindDbError),
    #[error("is a MaxMind DB of the type {0:?}, which has neither countries nor cities")]
    NoPlaces(String),
}

impl fmt::Debug for Cities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.reader.metadata();
        write!(f, "Cities({}, {} nodes)", metadata.database_type, metadata.node_count)
    }
}

impl Cities {
    /// Reads the content of a file.
    pub fn parse(content: Vec<u8>) -> Result<Self, BadCities> {
        let reader = Reader::from_source(content).map_err(BadCities::Format)?;
        let networks = reader.networks(maxminddb::WithinOptions::default()).map_err(BadCities::Format)?;
        let (mut has_countries, mut has_cities) = (false, false);
        for found in networks.take(SEARCHED) {
            let record: Option<geoip2::City<'_>> = found.and_then(|found| found.decode()).map_err(BadCities::Format)?;
            let Some(city) = record.and_then(|record| city(&record)) else { continue };
            has_countries = true;
            has_cities = city.has_detail();
            if has_cities {
                break;
            }
        }
        if !has_countries {
            return Err(BadCities::NoPlaces(reader.metadata().database_type.clone()));
        }
        Ok(Self { reader, has_cities })
    }

    /// What the file calls itself, such as `GeoLite2-City`, and when it was built, in seconds since 1970.
    pub fn describe(&self) -> (&str, u64) {
        (&self.reader.metadata().database_type, self.reader.metadata().build_epoch)
    }

    /// Returns false for a database that only has countries.
    pub fn has_cities(&self) -> bool {
        self.has_cities
    }

    /// Returns what the database says about an address. `None` if it says no country. A damaged record counts as none.
    pub(super) fn find(&self, ip: IpAddr) -> Option<City> {
        let record: geoip2::City<'_> = self.reader.lookup(ip.to_canonical()).ok()?.decode().ok()??;
        city(&record)
    }
}

impl City {
    fn has_detail(&self) -> bool {
        self.name.is_some() || self.place.is_some() || self.time_zone.is_some()
    }
}

fn city(record: &geoip2::City<'_>) -> Option<City> {
    let country = record.country.iso_code.and_then(Country::parse).filter(|country| country.is_known())?;
    let location = &record.location;
    Some(City {
        country,
        name: record.city.names.english.map(Box::from),
        region: record.subdivisions.first().and_then(|region| region.iso_code).map(Box::from),
        time_zone: location.time_zone.filter(|zone| is_zone(zone)).map(str::to_owned),
        place: location.latitude.zip(location.longitude).filter(|place| is_place(*place)),
    })
}

/// Returns true if the text can be the name of a time zone. The text becomes part of answer headers, so a wrong text of
/// a database must not get there.
fn is_zone(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn is_place((latitude, longitude): (f64, f64)) -> bool {
    latitude.abs() <= 90.0 && longitude.abs() <= 180.0
}

#[cfg(test)]
mod tests {
    use exitgate_testnet::mmdb::{Mmdb, Place};
    use proptest::prelude::*;

    use super::*;

    const PARIS: Place<'_> = Place {
        country: "FR",
        city: Some("Paris"),
        region: Some("IDF"),
        time_zone: Some("Europe/Paris"),
        coordinates: Some((48.85, 2.35)),
    };

    #[test]
    fn a_file_that_is_no_city_database_is_refused_with_a_reason() {
        let refused = |content: Vec<u8>| Cities::parse(content).unwrap_err().to_string();
        assert!(refused(Vec::new()).starts_with("is not a MaxMind DB file: "), "{}", refused(Vec::new()));
        assert!(refused(b"<html>404</html>".to_vec()).starts_with("is not a MaxMind DB file: "));
        let country = Place { city: None, region: None, time_zone: None, coordinates: None, ..PARIS };
        let only_countries = Cities::parse(Mmdb::named("GeoLite2-Country", &[("192.0.2.0/24", country)])).unwrap();
        assert!(!only_countries.has_cities() && Cities::parse(Mmdb::cities(&[("::/1", PARIS)])).unwrap().has_cities());
        let networks = refused(Mmdb::named("GeoLite2-ASN", &[("192.0.2.0/24", Place { country: "?", ..country })]));
        assert_eq!(networks, "is a MaxMind DB of the type \"GeoLite2-ASN\", which has neither countries nor cities");
        let whole = Mmdb::cities(&[("192.0.2.0/24", PARIS)]);
        assert!(Cities::parse(whole[..whole.len() / 2].to_vec()).is_err(), "half a file");
        assert_eq!(Cities::parse(whole).unwrap().describe().0, "Test-City");
    }

    #[test]
    fn texts_that_cannot_be_true_are_left_out() {
        let odd = Place { time_zone: Some("Europe/Paris\r\nX: y"), coordinates: Some((91.0, 0.0)), ..PARIS };
        let cities = Cities::parse(Mmdb::cities(&[("192.0.2.0/24", odd), ("198.51.100.0/25", PARIS)])).unwrap();
        let found = cities.find("192.0.2.9".parse().unwrap()).unwrap();
        assert_eq!((found.time_zone, found.place, found.name.as_deref()), (None, None, Some("Paris")));
        let paris = cities.find("198.51.100.127".parse().unwrap()).unwrap();
        assert_eq!((paris.time_zone.as_deref(), paris.place), (Some("Europe/Paris"), Some((48.85, 2.35))));
        assert_eq!(cities.find("198.51.100.128".parse().unwrap()), None);
        assert_eq!(cities.find("2001:db8::1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..4096, byte in any::<u8>(), ip in any::<u32>()) {
            let mut content = Mmdb::cities(&[("192.0.2.0/24", PARIS), ("0.0.0.0/1", PARIS)]);
            let at = at % content.len();
            content[at] = byte;
            if let Ok(cities) = Cities::parse(content) {
                let _ = cities.find(std::net::Ipv4Addr::from_bits(ip).into());
            }
        }
    }
}
