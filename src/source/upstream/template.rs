//! The username and password that a provider expects for a session: a template with fields. Pure.
//!
//! `customer-{user}[-cc-{country}]-sessid-{session}-sesstime-{minutes}` becomes
//! `customer-me-cc-us-sessid-12345678-sesstime-10`. The part in brackets is left out if a session has no country.

use crate::exit::country::Country;

/// The values of one session.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    /// `None` if the session may leave in any country.
    pub(super) country: Option<Country>,
    pub(super) session: &'a str,
    /// How long the provider keeps the address of the session.
    pub(super) minutes: u64,
}

/// Returns the text of a template with the values of a session.
pub(super) fn fill(template: &str, values: Values<'_>) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('[') {
        let (inside, after) = behind.split_once(']').unwrap_or((behind, ""));
        text.push_str(before);
        if values.country.is_some() {
            text.push_str(inside);
        }
        rest = after;
    }
    text.push_str(rest);
    let country = values.country.map(|country| country.to_string().to_ascii_lowercase()).unwrap_or_default();
    let (minutes, seconds) = (values.minutes.to_string(), (values.minutes * 60).to_string());
    let fields = [
        ("{country}", country.as_str()),
        ("{session}", values.session),
        ("{minutes}", &minutes),
        ("{seconds}", &seconds),
        ("{user}", values.user),
        ("{password}", values.password),
    ];
    // The text is searched once, so a value that looks like a field is not replaced.
    let mut filled = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        match fields.iter().find(|(field, _)| rest[at..].starts_with(field)) {
            Some((field, value)) => {
                filled.push_str(value);
                rest = &rest[at + field.len()..];
            }
            None => {
                filled.push('{');
                rest = &rest[at + 1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced_and_the_country_is_optional() {
        let us = Country::parse("US");
        let values =
            |country| Values { user: "me{session}", password: "pw", country, session: "12345678", minutes: 10 };
        let template = "customer-{user}[-cc-{country}]-sessid-{session}-sesstime-{minutes}";
        assert_eq!(fill(template, values(us)), "customer-me{session}-cc-us-sessid-12345678-sesstime-10");
        assert_eq!(fill(template, values(None)), "customer-me{session}-sessid-12345678-sesstime-10");
        assert_eq!(
            fill("{password}[_country-{country}]_lifetime-{minutes}m_{x}", values(us)),
            "pw_country-us_lifetime-10m_{x}"
        );
        assert_eq!(fill("{seconds}", values(None)), "600");
    }
}
