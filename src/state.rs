//! The one writer: a durable copy in the store, a hot copy in a snapshot that readers never lock.
