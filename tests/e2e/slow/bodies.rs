//! Bodies of a size that no buffer hides.

use std::time::Duration;

use exitgate_testnet::Testbed;

use crate::gateway::{Gateway, run_for};

/// One GiB: beyond what fits into sockets, pipes and windows by any count, and past 2^30, where a length as a signed 32-bit
/// number of bits would break.
const SIZE: u64 = 1 << 30;

/// Twenty times what the download takes on two idle cores.
const DEADLINE: Duration = Duration::from_secs(120);

/// The hash of what comes out of a curl.
async fn hash(curl: &str) -> String {
    let output = run_for(DEADLINE, "bash", &["-c", &format!("set -o pipefail; {curl} | sha256sum")]).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{curl}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_arrives_whole_in_every_protocol() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "gateway.allow_direct = true\ngateway.allow_private_targets = true").await;
    let url = format!("http://{}:{}/bytes/{SIZE}", bed.web.ip(), bed.web.http_port());
    let want = hash(&format!("curl -sS {url}")).await;
    for scheme in ["socks5h", "http"] {
        let proxy = format!("{scheme}://any-source-direct@{}", gateway.addr());
        assert_eq!(hash(&format!("curl -sS -x {proxy} {url}")).await, want, "{scheme}");
    }
    let tunnel = format!("curl -sS -p -x http://any-source-direct@{} {url}", gateway.addr());
    assert_eq!(hash(&tunnel).await, want, "CONNECT");
}
