//! `[geo]`: where the cities of exits come from.

use std::path::PathBuf;

use super::findings::Findings;
use super::schema;
use crate::exit::identity::Cities;

/// The settings of `[geo]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geo {
    /// A city database in the MaxMind DB format. `None`: the identity of an exit comes from its country.
    pub mmdb: Option<PathBuf>,
}

impl Geo {
    /// Reads the whole database, so a file that is no city database is found before the gateway starts.
    pub(super) fn validate(file: &schema::Geo, findings: &mut Findings) -> Self {
        if let Some(path) = &file.mmdb {
            let named = |what: String| format!("names {}, which {what}", path.display());
            match std::fs::read(path) {
                Err(error) => {
                    let hint = "write the path of a city database, such as GeoLite2-City.mmdb, that exitgate may read";
                    findings.fault("geo.mmdb", named(format!("cannot be read: {error}")), hint);
                }
                Ok(content) => {
                    let hint = "use a city database, such as GeoLite2-City or DB-IP City Lite, as the file .mmdb";
                    match Cities::parse(content) {
                        Err(why) => findings.fault("geo.mmdb", named(why.to_string()), hint),
                        Ok(cities) if !cities.has_cities() => {
                            findings.warn("geo.mmdb", named("has countries and no cities".to_owned()), hint);
                        }
                        Ok(_) => {}
                    }
                }
            }
        }
        Self { mmdb: file.mmdb.clone() }
    }
}

#[cfg(test)]
mod tests {
    use exitgate_testnet::mmdb::{Mmdb, Place};

    use super::super::parse;

    const ROME: Place<'_> = Place {
        country: "IT",
        city: Some("Rome"),
        region: None,
        time_zone: Some("Europe/Rome"),
        coordinates: Some((41.9, 12.5)),
    };

    #[test]
    fn a_bad_file_is_a_fault_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cities.mmdb");
        let text = format!("[geo]\nmmdb = {path:?}");
        let result = || parse("t.toml", &text, [], None).map(|(config, _)| config.geo).map_err(|why| why.to_string());
        let missing = result().unwrap_err();
        assert!(missing.contains("geo.mmdb") && missing.contains("cannot be read"), "{missing}");
        std::fs::write(&path, "Not Found").unwrap();
        let page = result().unwrap_err();
        assert!(page.contains("is not a MaxMind DB file") && page.contains("use a city database"), "{page}");
        std::fs::write(&path, Mmdb::cities(&[("192.0.2.0/24", ROME)])).unwrap();
        assert_eq!(result().unwrap().mmdb, Some(path));
    }
}
