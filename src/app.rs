//! Builds every part and wires them; the only file that knows all others.
