//! Serves the embedded web console.
