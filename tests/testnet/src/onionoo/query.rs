//! Onionoo's parameters. It knows a closed list of them.

use super::details::Details;

/// Every parameter that Onionoo accepts; any other is answered with 400.
const KNOWN: [&str; 20] = [
    "type",
    "running",
    "search",
    "lookup",
    "country",
    "as",
    "as_name",
    "flag",
    "first_seen_days",
    "last_seen_days",
    "contact",
    "order",
    "limit",
    "offset",
    "fields",
    "family",
    "version",
    "os",
    "host_name",
    "recommended_version",
];

/// The parameters of one request.
#[derive(Debug, Default)]
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    /// Reads a query. The error is the parameter that is unknown or wrong.
    pub(super) fn parse(query: &'a str) -> Result<Self, &'a str> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = match name {
                "limit" | "offset" => value.len() > 6 || value.parse::<u32>().is_err(),
                "running" => !matches!(value, "true" | "false"),
                "type" => !matches!(value, "relay" | "bridge"),
                _ => !KNOWN.contains(&name),
            };
            if wrong {
                return Err(name);
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|(key, value)| (*key == name).then_some(*value))
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.value(name)?.parse().ok()
    }

    /// The fields to show; none means all.
    pub(super) fn fields(&self) -> Option<Vec<&'a str>> {
        Some(self.value("fields")?.split(',').collect())
    }

    /// The relays to show, and how many are left out before and after them.
    pub(super) fn choose<'d>(&self, relays: &'d [Details]) -> (Vec<&'d Details>, usize, usize) {
        let matching: Vec<&Details> = relays.iter().filter(|relay| self.matches(relay)).collect();
        let skipped = self.number("offset").unwrap_or(0).min(matching.len());
        let shown: Vec<_> =
            matching[skipped..].iter().take(self.number("limit").unwrap_or(usize::MAX)).copied().collect();
        let truncated = matching.len() - skipped - shown.len();
        (shown, skipped, truncated)
    }

    /// Applies the parameters that a gateway uses. The others are accepted and ignored.
    fn matches(&self, relay: &Details) -> bool {
        let has = |name: &str, test: &dyn Fn(&str) -> bool| self.value(name).is_none_or(test);
        let fingerprint = relay.text("fingerprint");
        let begins = |text: &str| fingerprint.starts_with(&text.trim_start_matches('$').to_ascii_uppercase());
        let flags = relay.get("flags").and_then(|flags| flags.as_array()).map_or(&[][..], Vec::as_slice);
        has("type", &|kind| kind == "relay")
            && has("running", &|running| {
                relay.get("running").and_then(serde_json::Value::as_bool) == Some(running == "true")
            })
            && has("flag", &|flag| {
                flags.iter().any(|known| known.as_str().is_some_and(|k| k.eq_ignore_ascii_case(flag)))
            })
            && has("country", &|country| relay.text("country").eq_ignore_ascii_case(country))
            && has("lookup", &|print| fingerprint.eq_ignore_ascii_case(print))
            && has("search", &|term| begins(term) || relay.text("nickname").contains(term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_wrong_parameters_are_named() {
        for (query, fault) in [
            ("type=relay&running=true&flag=Exit&fields=a,b", None),
            ("", None),
            ("exits=true", Some("exits")),
            ("limit=1234567", Some("limit")),
            ("offset=-1", Some("offset")),
            ("running=yes", Some("running")),
        ] {
            assert_eq!(Query::parse(query).err(), fault, "{query}");
        }
    }

    #[test]
    fn relays_are_filtered_and_paged() {
        let relays: Vec<_> = (0..10).map(|index| Details::synthetic(index, 1_788_490_800)).collect();
        let chosen = |query: &str| {
            let (shown, skipped, truncated) = Query::parse(query).unwrap().choose(&relays);
            (shown.len(), skipped, truncated)
        };
        assert_eq!(chosen(""), (10, 0, 0));
        assert_eq!(chosen("flag=exit"), (5, 0, 0));
        assert_eq!(chosen("country=US"), (2, 0, 0));
        assert_eq!(chosen("limit=3&offset=2"), (3, 2, 5));
        assert_eq!(chosen("offset=100"), (0, 10, 0));
        assert_eq!(chosen("type=bridge"), (0, 0, 0));
        assert_eq!(chosen("running=false"), (0, 0, 0));
        assert_eq!(chosen("search=synthetic3"), (1, 0, 0));
        assert_eq!(chosen(&format!("lookup={}", relays[4].text("fingerprint"))), (1, 0, 0));
    }
}
