//! The identity of an exit, as `GET /exits/{id}` shows it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::exit::identity::Identity;

/// What a visitor from this exit would have. A browser that uses the exit should have the same time zone and languages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub(super) struct IdentityView {
    /// The name in the IANA time zone database, such as `Europe/Berlin`.
    time_zone: String,
    /// The most likely language with the country, such as `de-DE`.
    locale: &'static str,
    /// Languages of the country, the most likely first.
    #[schema(value_type = Vec<String>)]
    languages: &'static [&'static str],
    /// Degrees, north positive.
    latitude: f64,
    /// Degrees, east positive.
    longitude: f64,
    /// The English name of the city, if `geo.mmdb` is set and has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<Box<str>>,
    /// The code of the part of the country, such as `CA` for California, if `geo.mmdb` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Box<str>>,
    /// `city`: time zone and coordinates are those of the address. `country`: they are those of the country's largest city.
    precision: &'static str,
}

impl From<Identity> for IdentityView {
    fn from(identity: Identity) -> Self {
        let Identity { time_zone, locale, languages, latitude, longitude, city, region, precision } = identity;
        let (time_zone, precision) = (time_zone.into_owned(), precision.as_str());
        Self { time_zone, locale, languages, latitude, longitude, city, region, precision }
    }
}
