//! SQLite on a thread of its own, behind a bounded channel.
