//! argv → config → runtime → app → exit code.

fn main() {}
