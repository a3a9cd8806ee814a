//! Who runs the relays, where: the tables that the model draws from.
//!
//! The six large operators of exits and the shares of countries come from one Onionoo document of September 2026 (see
//! `README.md`). It shows about 20 smaller networks without their shares, so those are filled in such that each country
//! has its share, under numbers that are set aside for private use.

/// A network with exits in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator {
    pub(super) asn: u32,
    pub(super) name: &'static str,
    pub(super) country: &'static str,
    /// Its part of all exits, in percent; all of the table together make 104.
    pub(super) relays: f64,
    /// Its part of the exits' weight, likewise 101.
    pub(super) weight: f64,
    /// Whether all its exits are one family on machines with several exits each.
    pub(super) large: bool,
}

const fn large(asn: u32, name: &'static str, country: &'static str, relays: f64, weight: f64) -> Operator {
    Operator { asn, name, country, relays, weight, large: true }
}

const fn small(asn: u32, country: &'static str, relays: f64, weight: f64) -> Operator {
    Operator { asn, name: "Loopback Hosting", country, relays, weight, large: false }
}

/// Every network with exits.
pub(super) const OPERATORS: &[Operator] = &[
    large(62_744, "Quintex Alliance Consulting", "US", 23.5, 4.5),
    large(215_125, "Church of Cyberology", "NL", 19.0, 31.0),
    large(60_729, "Stiftung Erneuerbare Freiheit", "DE", 8.0, 17.0),
    large(401_401, "UAS 401401", "US", 7.0, 2.0),
    large(27_284, "UAS 27284", "US", 6.0, 2.0),
    large(208_323, "Foundation for Applied Privacy", "AT", 5.0, 9.0),
    small(64_512, "US", 2.5, 1.0),
    small(64_513, "US", 3.0, 1.2),
    small(64_514, "US", 1.5, 0.4),
    small(64_515, "US", 1.5, 0.4),
    small(64_516, "NL", 0.5, 0.1),
    small(64_517, "NL", 0.5, 0.1),
    small(64_518, "DE", 1.2, 3.0),
    small(64_519, "DE", 1.0, 4.0),
    small(64_520, "DE", 1.0, 4.0),
    small(64_521, "DE", 0.8, 2.0),
    small(64_522, "SE", 3.5, 5.0),
    small(64_523, "SE", 2.5, 3.0),
    small(64_524, "LU", 3.5, 4.0),
    small(64_525, "GB", 2.4, 1.3),
    small(64_526, "IT", 1.2, 1.5),
    small(64_527, "NO", 1.2, 1.5),
    small(64_528, "FR", 1.2, 1.5),
    small(64_529, "CZ", 1.2, 0.05),
    small(64_530, "SG", 1.2, 0.05),
    small(64_531, "AU", 1.2, 0.05),
    // Countries that a sample of 85 exits does not show; a selector for a small country needs some.
    small(64_532, "RO", 0.35, 0.1),
    small(64_532, "CH", 0.35, 0.2),
    small(64_533, "CA", 0.35, 0.2),
    small(64_533, "PL", 0.3, 0.1),
    small(64_534, "FI", 0.3, 0.1),
    small(64_534, "UA", 0.3, 0.1),
    small(64_535, "IS", 0.25, 0.1),
    small(64_535, "MD", 0.25, 0.1),
    small(64_536, "JP", 0.2, 0.05),
    small(64_536, "ZA", 0.15, 0.05),
];

/// Where relays that are no exits stand, in shares. From general knowledge: the sample says this of exits only.
pub(super) const OTHER_COUNTRIES: &[(&str, f64)] = &[
    ("DE", 29.0),
    ("US", 18.0),
    ("NL", 12.0),
    ("FR", 9.0),
    ("FI", 5.0),
    ("PL", 4.0),
    ("SE", 4.0),
    ("GB", 4.0),
    ("CH", 3.0),
    ("CA", 3.0),
    ("RO", 3.0),
    ("AT", 2.0),
    ("CZ", 2.0),
    ("JP", 2.0),
];

/// Versions of tor, in percent of the relays.
pub(super) const VERSIONS: &[(&str, f64)] =
    &[("0.4.9.11", 75.0), ("0.4.9.9", 13.0), ("0.4.9.8", 5.0), ("0.4.9.6", 3.0), ("0.4.9.5", 2.0), ("0.4.9.7", 2.0)];

/// The reduced policy that tor's project recommends to operators of exits.
const REDUCED: &str = "accept 20-23,43,53,79-81,88,110,143,194,220,389,443,464-465,531,543-544,554,563,587,636,706,749,853,873,\
                       902-904,981,989-995,1194,1220,1293,1500,1533,1677,1723,1755,1863,2082-2083,2086-2087,2095-2096,\
                       2102-2104,3128,3389,3690,4321,4643,5050,5190,5222-5223,5228,5900,6660-6669,6679,6697,8000,8008,\
                       8074,8080,8082,8087-8088,8232-8233,8332-8333,8443,8888,9418,9999-10000,11371,19294,19638,50002,64738";

/// Policies of exits, in percent. The sample says that these kinds occur and all let out 80 and 443; the shares are ours.
pub(super) const POLICIES: &[(&str, f64)] = &[
    (REDUCED, 40.0),
    ("accept 80,443", 20.0),
    ("accept 43,53,80,443,1194,1293,9418", 10.0),
    ("reject 25", 20.0),
    ("accept 1-65535", 10.0),
];
