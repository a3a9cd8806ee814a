//! Reads and writes the state of an engine's guards as JSON with a version number.
//!
//! An engine that forgets its guard chooses a new one, which helps an attacker. So unknown fields are accepted, and a
//! member of the sample that cannot be read is skipped. Only two kinds of text are refused: a text that is not such
//! JSON, and a later version, because this release could not save a later version without losing data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GuardState;
use super::sample::Candidate;

const VERSION: u32 = 1;

/// The most members of a sample that are read from a file. Real samples are far smaller.
const MAX_SAMPLE: usize = 1000;

/// Why a text could not be read as a guard state.
#[derive(Debug, thiserror::Error)]
pub enum BadState {
    /// The text is not JSON with the expected fields.
    #[error("the guard state cannot be read")]
    Json(#[from] serde_json::Error),
    /// The text was written by a later release of exitgate.
    #[error("the guard state is of version {0}, which is newer than {VERSION}")]
    Version(u32),
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    current: Option<String>,
    sample: &'a [Candidate],
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    sample: Vec<Value>,
}

impl GuardState {
    /// Parses a text that [`to_json`](Self::to_json) wrote.
    pub fn from_json(text: &str) -> Result<Self, BadState> {
        let read: Read = serde_json::from_str(text)?;
        if read.version > VERSION {
            return Err(BadState::Version(read.version));
        }
        let mut state = Self { current: read.current.and_then(|id| id.parse().ok()), ..Self::default() };
        for value in read.sample.into_iter().take(MAX_SAMPLE) {
            match serde_json::from_value::<Candidate>(value) {
                Ok(candidate) if state.place(candidate.id).is_none() => state.sample.push(candidate),
                _ => {}
            }
        }
        Ok(state)
    }

    /// Returns the state as text. The caller must store the text in a file that only our user can read.
    pub fn to_json(&self) -> String {
        let written =
            Written { version: VERSION, current: self.current.map(|id| id.to_string()), sample: &self.sample };
        // Writing numbers, strings and booleans as JSON cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}
