//! Country names and three-letter codes. They are used only for the hint in an error: `germany` and `deu` suggest `de`.
//!
//! Names and three-letter codes are not accepted as selectors. Pins and sessions belong to the text of a selector, so
//! two spellings of one country would make two pins.

/// For each country: its name without spaces, its ISO 3166-1 alpha-3 code, and its alpha-2 code. The list has only
/// countries with more than a few Tor exits or public proxies. For any other country, an error suggests no
/// code.
const NAMES: [(&str, &str, &str); 84] = [
    ("afghanistan", "afg", "af"),
    ("albania", "alb", "al"),
    ("argentina", "arg", "ar"),
    ("armenia", "arm", "am"),
    ("australia", "aus", "au"),
    ("austria", "aut", "at"),
    ("azerbaijan", "aze", "az"),
    ("bangladesh", "bgd", "bd"),
    ("belarus", "blr", "by"),
    ("belgium", "bel", "be"),
    ("bosnia", "bih", "ba"),
    ("brazil", "bra", "br"),
    ("bulgaria", "bgr", "bg"),
    ("cambodia", "khm", "kh"),
    ("canada", "can", "ca"),
    ("chile", "chl", "cl"),
    ("china", "chn", "cn"),
    ("colombia", "col", "co"),
    ("costarica", "cri", "cr"),
    ("croatia", "hrv", "hr"),
    ("cyprus", "cyp", "cy"),
    ("czechia", "cze", "cz"),
    ("denmark", "dnk", "dk"),
    ("ecuador", "ecu", "ec"),
    ("egypt", "egy", "eg"),
    ("estonia", "est", "ee"),
    ("finland", "fin", "fi"),
    ("france", "fra", "fr"),
    ("georgia", "geo", "ge"),
    ("germany", "deu", "de"),
    ("greece", "grc", "gr"),
    ("hongkong", "hkg", "hk"),
    ("hungary", "hun", "hu"),
    ("iceland", "isl", "is"),
    ("india", "ind", "in"),
    ("indonesia", "idn", "id"),
    ("iran", "irn", "ir"),
    ("iraq", "irq", "iq"),
    ("ireland", "irl", "ie"),
    ("israel", "isr", "il"),
    ("italy", "ita", "it"),
    ("japan", "jpn", "jp"),
    ("kazakhstan", "kaz", "kz"),
    ("kenya", "ken", "ke"),
    ("latvia", "lva", "lv"),
    ("lithuania", "ltu", "lt"),
    ("luxembourg", "lux", "lu"),
    ("malaysia", "mys", "my"),
    ("malta", "mlt", "mt"),
    ("mexico", "mex", "mx"),
    ("moldova", "mda", "md"),
    ("netherlands", "nld", "nl"),
    ("newzealand", "nzl", "nz"),
    ("nigeria", "nga", "ng"),
    ("northmacedonia", "mkd", "mk"),
    ("norway", "nor", "no"),
    ("pakistan", "pak", "pk"),
    ("panama", "pan", "pa"),
    ("peru", "per", "pe"),
    ("philippines", "phl", "ph"),
    ("poland", "pol", "pl"),
    ("portugal", "prt", "pt"),
    ("romania", "rou", "ro"),
    ("russia", "rus", "ru"),
    ("saudiarabia", "sau", "sa"),
    ("serbia", "srb", "rs"),
    ("seychelles", "syc", "sc"),
    ("singapore", "sgp", "sg"),
    ("slovakia", "svk", "sk"),
    ("slovenia", "svn", "si"),
    ("southafrica", "zaf", "za"),
    ("southkorea", "kor", "kr"),
    ("spain", "esp", "es"),
    ("sweden", "swe", "se"),
    ("switzerland", "che", "ch"),
    ("taiwan", "twn", "tw"),
    ("thailand", "tha", "th"),
    ("turkey", "tur", "tr"),
    ("ukraine", "ukr", "ua"),
    ("unitedarabemirates", "are", "ae"),
    ("unitedkingdom", "gbr", "gb"),
    ("unitedstates", "usa", "us"),
    ("uzbekistan", "uzb", "uz"),
    ("vietnam", "vnm", "vn"),
];

/// Other names of the same countries, each with the two-letter code.
const ALSO: [(&str, &str); 8] = [
    ("america", "us"),
    ("britain", "gb"),
    ("czechrepublic", "cz"),
    ("england", "gb"),
    ("holland", "nl"),
    ("korea", "kr"),
    ("turkiye", "tr"),
    ("uae", "ae"),
];

/// Returns the two-letter code of a country name or of a three-letter code. The text must be in lower case. Spaces and
/// `_` in it are ignored.
pub(super) fn code_of(name: &str) -> Option<&'static str> {
    let name: String = name.chars().filter(|c| !matches!(c, '_' | ' ')).collect();
    let listed = NAMES.iter().find(|(full, three, _)| *full == name || *three == name).map(|(.., code)| *code);
    listed.or_else(|| ALSO.iter().find(|(also, _)| *also == name).map(|(_, code)| *code))
}

#[cfg(test)]
mod tests {
    use super::super::country;
    use super::*;

    #[test]
    fn every_name_belongs_to_a_country_and_is_listed_once() {
        let mut all: Vec<_> = NAMES.iter().flat_map(|(name, three, _)| [*name, *three]).collect();
        all.extend(ALSO.map(|(name, _)| name));
        let codes = NAMES.iter().map(|(.., code)| *code).chain(ALSO.map(|(_, code)| code));
        assert!({ codes }.all(|code| country(code).is_some()));
        assert!(NAMES.iter().all(|(_, three, _)| three.len() == 3) && NAMES.is_sorted());
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), before);
        assert_eq!((code_of("deu"), code_of("south_korea"), code_of("atlantis")), (Some("de"), Some("kr"), None));
    }
}
