//! Built-in check targets. A route may use their names without a `[[check.targets]]` entry in the configuration.
//!
//! To add a check target, add an entry to [`PRESETS`]. A preset is tested only while a route uses its name. An entry of
//! the configuration with the same name replaces the preset.

use http::Uri;

use super::CheckTarget;

struct Preset {
    name: &'static str,
    url: &'static str,
    /// Text that the page must contain.
    body: &'static str,
    /// The site that an exit is banned from if it fails this check.
    site: &'static str,
}

/// The built-in check targets. Both pages work in a browser without an account, and both refuse addresses that look
/// suspicious to them.
const PRESETS: [Preset; 2] = [
    Preset {
        name: "steam",
        url: "https://steamcommunity.com/market/search/render/?norender=1&count=1",
        body: "\"success\":true",
        site: "steamcommunity.com",
    },
    Preset {
        name: "maps",
        url: "https://maps.googleapis.com/maps/api/js",
        body: "google.maps",
        site: "googleapis.com",
    },
];

/// Returns the presets whose names are not among the check targets in `defined`.
pub(super) fn beside(defined: &[CheckTarget]) -> Vec<CheckTarget> {
    let absent = PRESETS.iter().filter(|preset| !defined.iter().any(|target| target.name == preset.name));
    absent.map(Preset::target).collect()
}

impl Preset {
    fn target(&self) -> CheckTarget {
        CheckTarget {
            name: self.name.to_owned(),
            url: Uri::from_static(self.url),
            expect_status: vec![200],
            expect_body: Some(self.body.to_owned()),
            expect_regex: None,
            expect_latency: None,
            site: self.site.to_owned(),
            preset: true,
        }
    }
}
