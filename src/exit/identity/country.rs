//! The table of countries: the time zone, place and languages of each. It is part of the program.
//!
//! `identity/countries.tsv` is made by `identity/make-countries.py` from tzdata and CLDR.
//! `docs/decisions/0040-identity-of-an-exit.md` gives sources, licences and reasons.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::exit::country::Country;

/// One line of the table.
#[derive(Debug)]
pub(super) struct CountryRow {
    /// The number of time zones of the country.
    pub(super) zones: usize,
    /// The time zone of the largest city.
    pub(super) time_zone: &'static str,
    /// The coordinates of the city that gives the time zone its name, in degrees. North and east are positive.
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) locale: &'static str,
    pub(super) languages: Vec<&'static str>,
}

static TABLE: LazyLock<BTreeMap<Country, CountryRow>> =
    LazyLock::new(|| include_str!("countries.tsv").lines().filter_map(read).collect());

/// Returns the line of a country. `None` for the unknown country, and for a country without inhabitants.
pub(super) fn row(country: Country) -> Option<&'static CountryRow> {
    TABLE.get(&country)
}

fn read(line: &'static str) -> Option<(Country, CountryRow)> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let country = next()?.parse().ok()?;
    let (zones, time_zone) = (next()?.parse().ok()?, next()?);
    let (latitude, longitude) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let (locale, languages) = (next()?, next()?.split(',').collect());
    Some((country, CountryRow { zones, time_zone, latitude, longitude, locale, languages }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read_and_makes_sense() {
        let lines = include_str!("countries.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(TABLE.len(), lines);
        assert!(lines > 240, "{lines}");
        for (country, row) in TABLE.iter() {
            assert!(row.zones > 0 && row.time_zone.contains('/'), "{country}: {row:?}");
            assert!(row.latitude.abs() <= 90.0 && row.longitude.abs() <= 180.0, "{country}: {row:?}");
            assert_eq!(row.locale.split_once('-').unwrap().1, country.as_str());
            assert_eq!(row.languages[0], row.locale.split_once('-').unwrap().0, "{country}");
        }
    }

    /// The choice of a zone where there are several. The order in tzdata would give other ones.
    #[test]
    fn the_zone_is_that_of_the_largest_city() {
        for (country, zone, latitude) in [
            ("US", "America/New_York", 40.7),
            ("RU", "Europe/Moscow", 55.8),
            ("BR", "America/Sao_Paulo", -23.5),
            ("AU", "Australia/Sydney", -33.9),
            ("CA", "America/Toronto", 43.7),
            ("XK", "Europe/Belgrade", 42.7),
        ] {
            let row = row(country.parse().unwrap()).unwrap();
            assert_eq!(row.time_zone, zone);
            assert!((row.latitude - latitude).abs() < 0.1, "{country}: {row:?}");
        }
        assert!(row(Country::UNKNOWN).is_none());
    }

    #[test]
    fn nearly_every_country_that_a_username_can_name_is_in_the_table() {
        let all = Country::parse("US").unwrap();
        assert!(row(all).is_some());
        let missing: Vec<_> = ["BV", "HM"].into_iter().filter(|code| row(code.parse().unwrap()).is_none()).collect();
        assert_eq!(missing, ["BV", "HM"], "two islands without inhabitants have no time zone in tzdata");
    }
}
