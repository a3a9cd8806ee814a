//! Real clients, each in its own protocol; the site must see the exit that the answer named.
//!
//! `clients/curl.rs`: curl, in every way that it knows. `clients/scripts.rs`: libraries. `clients/tools.rs`: programs that
//! are pointed at a gateway, or forced through one. Browsers are in `slow.rs`.

mod curl;
mod installed;
mod scripts;
mod tools;
