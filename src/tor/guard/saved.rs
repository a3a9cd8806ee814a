//! Reads and writes the guard state as JSON with a version.
//!
//! An engine that forgets its guard chooses a new one, which helps an attacker. So reading accepts unknown fields and
//! skips a member of the sample that cannot be read. It refuses only a text that is not such JSON, and a later version,
//! because it could not write those back without loss.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GuardState;
use super::sample::Candidate;

const VERSION: u32 = 1;

/// Far more than any sample holds.
const MAX_SAMPLE: usize = 1000;

/// Why a text is not a guard state.
#[derive(Debug, thiserror::Error)]
pub enum BadState {
    /// The text is not JSON of this shape.
    #[error("the guard state cannot be read")]
    Json(#[from] serde_json::Error),
    /// Written by a later release.
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
    /// Reads what [`to_json`](Self::to_json) wrote.
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

    /// The state as text, for the caller to store where only we can read it.
    pub fn to_json(&self) -> String {
        let written =
            Written { version: VERSION, current: self.current.map(|id| id.to_string()), sample: &self.sample };
        // Writing numbers, strings and booleans as JSON cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}
