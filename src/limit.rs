//! Who may do how much: connections at once, new ones a second, bytes a second, failed keys.
