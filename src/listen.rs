//! Owns a port: permit, accept, pause on error, spawn. The only accept loop.
