//! The network itself, seen by plain tor.
#![expect(clippy::print_stderr, reason = "start times are wanted in the output")]

use exitgate_testnet::{Network, Options};

#[tokio::test]
async fn it_comes_up() {
    let network = Network::start(Options::default()).await.unwrap();
    eprintln!("{:?} {:?} {}", network.start_kind(), network.start_took(), network.ground().folder().display());
    let client = network.client("a", &[]).await.unwrap();
    eprintln!("client {:?}", client.boot_took());
}
