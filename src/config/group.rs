//! `[groups]`: names for lists of countries. Usernames may contain these names.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::text_value::List;

/// All country codes of ISO 3166-1, and `xk`, which geoip databases use for Kosovo.
const COUNTRIES: &str = "ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs \
    bt bv bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh er es et fi fj \
    fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it \
    je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp \
    mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re \
    ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv \
    tw tz ua ug um us uy uz va vc ve vg vi vn vu wf ws xk ye yt za zm zw";

/// The keywords of usernames, which must not be names of groups. They are explained in `route/selector/keywords.rs`.
const RESERVED: [&str; 17] = [
    "any",
    "strict",
    "flexible",
    "rotate",
    "session",
    "ttl",
    "exit",
    "asn",
    "source",
    "country",
    "cc",
    "sessid",
    "sessionid",
    "sesstime",
    "sessionduration",
    "lifetime",
    "sessionlength",
];

/// The groups of the section `[groups]`: a map from the name of each group to its countries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, Vec<String>>);

impl Groups {
    /// Returns the countries of a group as lower-case codes, or `None` if there is no such group.
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "for checkers of selectors, such as those of tests"))]
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Iterates over all groups, each with its countries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, countries)| (name.as_str(), countries.as_slice()))
    }

    pub(super) fn validate(file: &BTreeMap<String, List<String>>, findings: &mut Findings) -> Self {
        let groups = file.iter().map(|(name, members)| {
            let at = KeyPath::from("groups").key(name);
            check_name(name, &at, findings);
            (name.clone(), countries(members, &at, findings))
        });
        Self(groups.collect())
    }
}

fn check_name(name: &str, at: &KeyPath, findings: &mut Findings) {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !plain || !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 63 {
        let hint =
            "use 1 to 63 lower-case letters, digits and _, beginning with a letter, because usernames contain it";
        findings.fault(at, "is not a valid group name", hint);
    } else if is_country(name) {
        findings.fault(at, "is the code of a country", format!("choose a longer name, such as \"{name}_plus\""));
    } else if name.starts_with("non") {
        let hint = "choose another name: in a username `non` before a country or group means all other countries";
        findings.fault(at, "begins with `non`", hint);
    } else if RESERVED.contains(&name) {
        findings.fault(at, "is a keyword of usernames", "choose another name");
    }
}

fn countries(members: &List<String>, at: &KeyPath, findings: &mut Findings) -> Vec<String> {
    if members.is_empty() {
        findings.fault(at, "is empty", "list country codes, such as [\"de\", \"fr\"]");
    }
    let mut countries: Vec<String> = Vec::new();
    for (index, code) in members.iter() {
        let code = code.to_ascii_lowercase();
        if !is_country(&code) {
            let hint = if code == "uk" {
                "write \"gb\" for the United Kingdom"
            } else {
                "write a two-letter code, such as \"de\""
            };
            findings.fault(at.index(index), format!("is {code:?}, which is not a country code"), hint);
        } else if countries.contains(&code) {
            findings.warn(at.index(index), format!("is {code:?}, which the list has already"), "remove it");
        } else {
            countries.push(code);
        }
    }
    countries
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && COUNTRIES.split_ascii_whitespace().any(|known| known == code)
}
