//! Text → words → selector. One pass, no backtracking: each word is a mode, a key with its value, or the place.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::Split;
use std::time::Duration;

use super::words::{Key, Word};
use super::{BadSelector, Geo, Mode, Pick, Reason, Selector, SessionId, SourcePick, Words};

/// What SOCKS5 can carry.
const LONGEST: usize = 255;

/// The longest time that can be said at all: a year. What a gateway allows is its config's.
const LONGEST_SPAN: u64 = 366 * 24 * 3600;

/// What was said, each with the words that said it.
#[derive(Debug, Default)]
pub(super) struct Said<'t> {
    pub(super) geo: Option<(Geo, &'t str)>,
    pub(super) mode: Option<(Mode, &'t str)>,
    pub(super) session: Option<(SessionId, &'t str)>,
    pub(super) ttl: Option<(Duration, &'t str)>,
    pub(super) exit: Option<(Pick, &'t str)>,
    pub(super) asn: Option<(u32, &'t str)>,
    pub(super) source: Option<(SourcePick, &'t str)>,
}

/// Reads a whole selector.
pub(super) fn selector(text: &str, words: &Words) -> Result<Selector, BadSelector> {
    if text.is_empty() {
        return Err(BadSelector::new("", Reason::Nothing));
    }
    let bare = words.without_prefix(text);
    let said = Said::read(bare.unwrap_or(text), words)?;
    let first = bare.unwrap_or(text).split('-').next().unwrap_or_default();
    // Paid gateways leave the country out for "any"; ours is a grammar in which a forgotten place is a mistake.
    if said.geo.is_none() && bare.is_none() && Word::alias(first).is_none() {
        return Err(BadSelector::new(first, Reason::NoPlace));
    }
    let selector = Selector {
        geo: said.geo.as_ref().map_or_else(Geo::any, |(geo, _)| geo.clone()),
        mode: said.mode.map_or(Mode::Flexible, |(mode, _)| mode),
        session: said.session.as_ref().map(|(session, _)| session.clone()),
        ttl: said.ttl.map(|(ttl, _)| ttl),
        exit: said.exit.map(|(exit, _)| exit),
        asn: said.asn.map(|(asn, _)| asn),
        source: said.source.map_or(SourcePick::Tor, |(source, _)| source),
    };
    said.contradictions(&selector)?;
    Ok(selector)
}

impl<'t> Said<'t> {
    /// Reads words joined by `-`; a place may only be the first of them. No text, no words.
    pub(super) fn read(text: &'t str, words: &Words) -> Result<Self, BadSelector> {
        if text.len() > LONGEST {
            return Err(BadSelector::new(text, Reason::TooLong));
        }
        let mut said = Self::default();
        if text.is_empty() {
            return Ok(said);
        }
        let mut tokens = text.split('-');
        let mut first = true;
        while let Some(token) = tokens.next() {
            let folded = token.to_ascii_lowercase();
            match Word::of(&folded) {
                Some(Word::Mode(mode)) => put(&mut said.mode, mode, token)?,
                Some(Word::Key(key) | Word::Alias(key)) => said.take(key, token, &mut tokens, words)?,
                None => said.take_place(first, token, &folded, tokens.clone(), words)?,
            }
            first = false;
        }
        Ok(said)
    }

    fn take(&mut self, key: Key, token: &'t str, rest: &mut Split<'t, char>, words: &Words) -> Result<(), BadSelector> {
        let value = rest.next().ok_or_else(|| BadSelector::new(token, Reason::NoValue))?;
        let folded = value.to_ascii_lowercase();
        let bad = |why| BadSelector::new(value, why);
        match key {
            Key::Geo => {
                let geo = Geo::parse(&folded, words).map_err(|why| bad(hinted(why, &folded, words)))?;
                put(&mut self.geo, geo, token)
            }
            Key::Session => {
                let session = SessionId::parse(value).ok_or_else(|| bad(Reason::Session))?;
                put(&mut self.session, session, token)
            }
            Key::Ttl(unit) => put(&mut self.ttl, span(&folded, unit).ok_or_else(|| bad(Reason::Time))?, token),
            Key::Exit => put(&mut self.exit, pick(&folded).ok_or_else(|| bad(Reason::Exit))?, token),
            Key::Asn => put(&mut self.asn, asn(&folded).ok_or_else(|| bad(Reason::Asn))?, token),
            Key::Source => put(&mut self.source, source(&folded).ok_or_else(|| bad(Reason::Source))?, token),
        }
    }

    fn take_place(
        &mut self,
        first: bool,
        token: &'t str,
        folded: &str,
        rest: Split<'t, char>,
        words: &Words,
    ) -> Result<(), BadSelector> {
        let bad = |why| Err(BadSelector::new(token, why));
        match Geo::parse(folded, words) {
            Ok(geo) if first => put(&mut self.geo, geo, token),
            Ok(_) if self.geo.is_some() => bad(Reason::SecondPlace),
            Ok(_) => bad(Reason::LatePlace),
            Err(why @ Reason::Unknown(_)) => match rest.clone().find_map(Word::alias) {
                Some(alias) if first => bad(Reason::Prefix(alias)),
                _ => bad(hinted(why, folded, words)),
            },
            Err(why) => bad(why),
        }
    }

    /// What cannot be meant together, in whatever words and by whichever of route and client it was said.
    pub(super) fn contradictions(&self, whole: &Selector) -> Result<(), BadSelector> {
        let mode = self.mode.map_or("", |(_, token)| token);
        let session = self.session.as_ref().map_or(mode, |(_, token)| token);
        let exit = self.exit.map_or(mode, |(_, token)| token);
        if whole.session.is_some() && whole.mode == Mode::Rotate {
            return Err(BadSelector::new(session, Reason::SessionRotate));
        }
        if whole.exit.is_some() && whole.mode == Mode::Rotate {
            return Err(BadSelector::new(exit, Reason::ExitRotate));
        }
        if let (Some((_, token)), None) = (self.ttl, &whole.session) {
            return Err(BadSelector::new(token, Reason::TimeAlone));
        }
        let elsewhere = matches!(whole.source, SourcePick::Public | SourcePick::Direct);
        if matches!(whole.exit, Some(Pick::Relay(_))) && elsewhere {
            let token = self.exit.map(|(_, token)| token).or(self.source.map(|(_, token)| token));
            return Err(BadSelector::new(token.unwrap_or_default(), Reason::ExitSource));
        }
        Ok(())
    }
}

/// Strict and rotate are two values of one thing, and each deserves its own reason.
fn put<'t, T: PartialEq + 'static>(
    slot: &mut Option<(T, &'t str)>,
    value: T,
    token: &'t str,
) -> Result<(), BadSelector> {
    let Some((before, _)) = slot else {
        *slot = Some((value, token));
        return Ok(());
    };
    let mode = |value: &T| (value as &dyn std::any::Any).downcast_ref::<Mode>().copied();
    let why = match (mode(before), mode(&value)) {
        (Some(Mode::Strict), Some(Mode::Rotate)) | (Some(Mode::Rotate), Some(Mode::Strict)) => Reason::StrictRotate,
        _ => Reason::Twice,
    };
    Err(BadSelector::new(token, why))
}

fn hinted(why: Reason, folded: &str, words: &Words) -> Reason {
    if matches!(why, Reason::Unknown(_)) { Reason::Unknown(words.nearest(folded)) } else { why }
}

/// A number and its unit, or a bare number where a paid gateway's word has a unit of its own.
fn span(text: &str, bare: Option<u64>) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => bare?,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let seconds = number(digits)?.checked_mul(unit).filter(|seconds| (1..=LONGEST_SPAN).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// Digits and nothing else: `u64::from_str` also takes a `+`.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn pick(text: &str) -> Option<Pick> {
    if let Ok(relay) = text.parse() {
        return Some(Pick::Relay(relay));
    }
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => text.replace('_', ":").parse::<Ipv6Addr>().ok()?.into(),
    };
    Some(Pick::Ip(ip.to_canonical()))
}

fn asn(text: &str) -> Option<u32> {
    number(text.strip_prefix("as").unwrap_or(text)).and_then(|asn| u32::try_from(asn).ok()).filter(|asn| *asn > 0)
}

fn source(text: &str) -> Option<SourcePick> {
    [SourcePick::Tor, SourcePick::Public, SourcePick::Direct, SourcePick::Any].into_iter().find(|s| s.as_str() == text)
}

/// A time as user names have it: whole, in the largest unit that fits.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            hours if hours % 3600 == 0 => write!(f, "{}h", hours / 3600),
            minutes if minutes % 60 == 0 => write!(f, "{}m", minutes / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}
