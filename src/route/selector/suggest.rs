//! "Did you mean …?": the token that somebody most likely meant who wrote one that does not exist.

use super::country;
use super::country_names::code_of;
use super::keywords::{KEYWORDS, NON, Words};
use super::reason::Hint;

/// What to offer instead of an unknown token, in lower case. `next` is the token behind it: `non-us` and
/// `united-states` are two tokens.
pub(super) fn suggest(token: &str, next: Option<&str>, words: &Words) -> Hint {
    let next = next.map(str::to_ascii_lowercase).unwrap_or_default();
    let negated = || matches!(token, NON | "not").then(|| places(&next, words)).flatten();
    let near = negated().map(|places| format!("{NON}{places}"));
    let near = near.or_else(|| places(token, words));
    let near = near.or_else(|| code_of(&format!("{token}{next}")).map(str::to_owned));
    Hint(near.map(String::into_boxed_str)).or_else(|| nearest(token, words))
}

/// Countries and groups joined by `+`, with names and three-letter codes replaced by two-letter codes.
fn places(text: &str, words: &Words) -> Option<String> {
    let code = |piece: &str| {
        let known = words.group(piece).is_some() || country(piece).is_some();
        if known { Some(piece.to_owned()) } else { code_of(piece).map(str::to_owned) }
    };
    let all = |text: &str| text.split('+').map(code).collect::<Option<Vec<_>>>().map(|codes| codes.join("+"));
    all(text).or_else(|| text.strip_prefix(NON).and_then(all).map(|places| format!("{NON}{places}")))
}

/// The keyword or group with the fewest typing errors between it and the token.
fn nearest(token: &str, words: &Words) -> Hint {
    let groups = words.groups();
    let known = KEYWORDS.iter().map(|(word, _)| *word).chain(groups);
    let near = known.map(|known| (strsim::damerau_levenshtein(token, known), known)).min();
    // One error in three letters at most: two make another word of a short one.
    Hint(near.filter(|(errors, known)| *errors <= known.len() / 3).map(|(_, known)| known.into()))
}
