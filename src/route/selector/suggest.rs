//! "Did you mean …?": if a token does not exist, finds the token that the user most likely meant.

use super::country;
use super::country_names::code_of;
use super::keywords::{KEYWORDS, NON, Words};
use super::reason::Hint;

/// Returns what to suggest instead of an unknown token, in lower case. `next` is the token after the unknown one,
/// because `non-us` and `united-states` are two tokens.
pub(super) fn suggest(token: &str, next: Option<&str>, words: &Words) -> Hint {
    let next = next.map(str::to_ascii_lowercase).unwrap_or_default();
    let negated = || matches!(token, NON | "not").then(|| places(&next, words)).flatten();
    let near = negated().map(|places| format!("{NON}{places}"));
    let near = near.or_else(|| places(token, words));
    let near = near.or_else(|| code_of(&format!("{token}{next}")).map(str::to_owned));
    Hint(near.map(String::into_boxed_str)).or_else(|| nearest(token, words))
}

/// Reads countries and groups joined by `+`. Names and three-letter codes of countries are replaced by two-letter
/// codes.
fn places(text: &str, words: &Words) -> Option<String> {
    let code = |piece: &str| {
        let known = words.group(piece).is_some() || country(piece).is_some();
        if known { Some(piece.to_owned()) } else { code_of(piece).map(str::to_owned) }
    };
    let all = |text: &str| text.split('+').map(code).collect::<Option<Vec<_>>>().map(|codes| codes.join("+"));
    all(text).or_else(|| text.strip_prefix(NON).and_then(all).map(|places| format!("{NON}{places}")))
}

/// Returns the keyword or group that differs from the token by the fewest typing errors.
fn nearest(token: &str, words: &Words) -> Hint {
    let groups = words.groups();
    let known = KEYWORDS.iter().map(|(word, _)| *word).chain(groups);
    let near = known.map(|known| (strsim::damerau_levenshtein(token, known), known)).min();
    // At most one error in three letters is allowed: two errors can turn a short word into another word.
    Hint(near.filter(|(errors, known)| *errors <= known.len() / 3).map(|(_, known)| known.into()))
}
