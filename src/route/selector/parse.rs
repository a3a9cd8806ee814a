//! Reads a text as tokens, and tokens as a selector. Each token is read once: it is a mode, a key with its value, or
//! the place (countries), which must come first.

use std::net::{IpAddr, Ipv6Addr};
use std::str::Split;
use std::time::Duration;

use super::keywords::{Key, Keyword, Words};
use super::session_id::split_rest;
use super::span::{self, number};
use super::suggest::suggest;
use crate::exit::UpstreamName;
use crate::route::isolate_by::IsolateBy;

use super::{BadSelector, Geo, Mode, Pick, Reason, Selector, SessionId, SourcePick};

/// The length of the longest username that SOCKS5 can carry, in bytes.
const LONGEST: usize = 255;

/// The parts of a selector, each with the token from which the part was read.
#[derive(Debug, Default)]
pub(super) struct ParsedTokens<'t> {
    pub(super) geo: Option<(Geo, &'t str)>,
    pub(super) mode: Option<(Mode, &'t str)>,
    pub(super) session: Option<(SessionId, &'t str)>,
    pub(super) ttl: Option<(Duration, &'t str)>,
    pub(super) exit: Option<(Pick, &'t str)>,
    pub(super) asn: Option<(u32, &'t str)>,
    pub(super) not_asn: Option<(Vec<u32>, &'t str)>,
    pub(super) source: Option<(SourcePick, &'t str)>,
    pub(super) isolate: Option<(IsolateBy, &'t str)>,
}

/// Reads a text that must be one whole selector.
pub(super) fn selector(text: &str, words: &Words) -> Result<Selector, BadSelector> {
    if text.is_empty() {
        return Err(BadSelector::new("", Reason::Nothing));
    }
    let bare = words.without_prefix(text);
    let parsed = ParsedTokens::read(bare.unwrap_or(text), words)?;
    let first = bare.unwrap_or(text).split(['-', '=']).next().unwrap_or_default();
    // In usernames of paid gateways a missing country means "any". In our own grammar a missing place is an error.
    if parsed.geo.is_none() && bare.is_none() && Keyword::alias(first).is_none() {
        return Err(BadSelector::new(first, Reason::NoPlace));
    }
    let mut selector = Selector {
        geo: parsed.geo.as_ref().map_or_else(Geo::any, |(geo, _)| geo.clone()),
        mode: parsed.mode.map_or(Mode::Flexible, |(mode, _)| mode),
        session: parsed.session.as_ref().map(|(session, _)| session.clone()),
        ttl: parsed.ttl.map(|(ttl, _)| ttl),
        exit: parsed.exit.map(|(exit, _)| exit),
        asn: parsed.asn.map(|(asn, _)| asn),
        not_asn: parsed.not_asn.as_ref().map_or_else(Vec::new, |(all, _)| all.clone()),
        source: parsed.source.map_or(SourcePick::Tor, |(source, _)| source),
        narrowed_source: false,
        isolate: parsed.isolate.map(|(by, _)| by),
    };
    parsed.contradictions(&selector)?;
    selector.drop_idle_exclusions();
    Ok(selector)
}

/// Returns true if the text of a selector contains the token `source-…`.
pub(super) fn has_source(text: &str, words: &Words) -> Result<bool, BadSelector> {
    let text = words.without_prefix(text).unwrap_or(text);
    Ok(ParsedTokens::read(text, words)?.source.is_some())
}

impl<'t> ParsedTokens<'t> {
    /// Reads tokens joined by `-`. Only the first token may be a place. An empty text has no tokens.
    pub(super) fn read(text: &'t str, words: &Words) -> Result<Self, BadSelector> {
        if text.len() > LONGEST {
            return Err(BadSelector::new(text, Reason::TooLong));
        }
        let mut parsed = Self::default();
        let (text, session) = split_rest(text);
        if !text.is_empty() {
            parsed.read_tokens(text, words)?;
        }
        if let Some((keyword, name)) = session {
            let session = SessionId::parse(name).ok_or_else(|| BadSelector::new(name, Reason::SessionText))?;
            put(&mut parsed.session, session, keyword)?;
        }
        Ok(parsed)
    }

    fn read_tokens(&mut self, text: &'t str, words: &Words) -> Result<(), BadSelector> {
        let mut tokens = text.split('-');
        let (mut first, mut after_session) = (true, false);
        while let Some(token) = tokens.next() {
            let folded = token.to_ascii_lowercase();
            let keyword = Keyword::of(&folded);
            match keyword {
                Some(Keyword::Mode(mode)) => put(&mut self.mode, mode, token)?,
                Some(Keyword::Key(key) | Keyword::Alias(key)) => self.take_value(key, token, &mut tokens, words)?,
                None => self.take_place(first, token, &folded, tokens.clone(), words).map_err(|bad| match bad.why {
                    Reason::Unknown(hint) if after_session => BadSelector::new(token, Reason::AfterSession(hint)),
                    Reason::NoCountry if after_session => BadSelector::new(token, Reason::AfterSession(None.into())),
                    _ => bad,
                })?,
            }
            first = false;
            after_session = matches!(keyword, Some(Keyword::Key(Key::Session) | Keyword::Alias(Key::Session)));
        }
        Ok(())
    }

    fn take_value(
        &mut self,
        key: Key,
        token: &'t str,
        rest: &mut Split<'t, char>,
        words: &Words,
    ) -> Result<(), BadSelector> {
        let value = rest.next().ok_or_else(|| BadSelector::new(token, Reason::NoValue))?;
        let folded = value.to_ascii_lowercase();
        let bad = |why| BadSelector::new(value, why);
        match key {
            Key::Geo => {
                let geo = Geo::parse(&folded, words).map_err(|why| bad(with_hint(why, &folded, None, words)))?;
                put(&mut self.geo, geo, token)
            }
            Key::Session => {
                let session = SessionId::parse_plain(value).ok_or_else(|| bad(Reason::Session))?;
                put(&mut self.session, session, token)
            }
            Key::Ttl(unit) => put(&mut self.ttl, span::parse(&folded, unit).ok_or_else(|| bad(Reason::Time))?, token),
            Key::Exit => put(&mut self.exit, pick(&folded).ok_or_else(|| bad(Reason::Exit))?, token),
            Key::Asn => put(&mut self.asn, asn(&folded).ok_or_else(|| bad(Reason::Asn))?, token),
            Key::NotAsn => put(&mut self.not_asn, all_asn(&folded).ok_or_else(|| bad(Reason::Asn))?, token),
            Key::Source => put(&mut self.source, source(&folded).ok_or_else(|| bad(Reason::Source))?, token),
            Key::Isolate => {
                put(&mut self.isolate, IsolateBy::parse(&folded).ok_or_else(|| bad(Reason::Isolate))?, token)
            }
        }
    }

    fn take_place(
        &mut self,
        first: bool,
        token: &'t str,
        folded: &str,
        mut rest: Split<'t, char>,
        words: &Words,
    ) -> Result<(), BadSelector> {
        let bad = |why| Err(BadSelector::new(token, why));
        match Geo::parse(folded, words) {
            Ok(geo) if first => put(&mut self.geo, geo, token),
            Ok(_) if self.geo.is_some() => bad(Reason::SecondPlace),
            Ok(_) => bad(Reason::LatePlace),
            Err(why @ Reason::Unknown(_)) => match rest.clone().find_map(Keyword::alias) {
                Some(alias) if first => bad(Reason::Prefix(alias)),
                _ => bad(with_hint(why, folded, rest.next(), words)),
            },
            Err(why) => bad(why),
        }
    }

    /// Refuses combinations that contradict each other. `whole` is the resulting selector. If these tokens follow a
    /// route's name, `whole` also has the parts of the route's selector.
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
        if whole.asn.is_some_and(|asn| whole.not_asn.contains(&asn)) {
            let token = self.not_asn.as_ref().map(|(_, token)| *token).or(self.asn.map(|(_, token)| token));
            return Err(BadSelector::new(token.unwrap_or_default(), Reason::AsnBoth));
        }
        let not_tor = !matches!(whole.source, SourcePick::Tor | SourcePick::Any);
        if matches!(whole.exit, Some(Pick::Relay(_))) && not_tor {
            let token = self.exit.map(|(_, token)| token).or(self.source.map(|(_, token)| token));
            return Err(BadSelector::new(token.unwrap_or_default(), Reason::ExitSource));
        }
        Ok(())
    }
}

/// Sets a part that was not set yet. `strict` and `rotate` are two values of the same part. If both are written, the
/// error has its own reason.
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

fn with_hint(why: Reason, folded: &str, next: Option<&str>, words: &Words) -> Reason {
    if matches!(why, Reason::Unknown(_)) { Reason::Unknown(suggest(folded, next, words)) } else { why }
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

/// Reads the numbers of several autonomous systems, joined by `+`. The result is in ascending order.
fn all_asn(text: &str) -> Option<Vec<u32>> {
    let mut all = text.split(['+', '.', ' ']).map(asn).collect::<Option<Vec<_>>>()?;
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn source(text: &str) -> Option<SourcePick> {
    let built_in = [SourcePick::Tor, SourcePick::Public, SourcePick::Direct, SourcePick::Any];
    let built_in = built_in.into_iter().find(|pick| pick.as_str() == text);
    built_in.or_else(|| UpstreamName::find(text).map(SourcePick::Upstream))
}
