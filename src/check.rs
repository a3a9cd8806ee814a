//! The exit tester: probes through an exit, what they came to, and when the next one is due.
