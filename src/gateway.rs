//! The data path: from accepted bytes to a relayed tunnel. Start reading at `gateway/connection.rs`.
