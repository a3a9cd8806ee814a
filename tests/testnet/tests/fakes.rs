//! The fake sources, without tor.

use std::net::SocketAddr;
use std::sync::Arc;

use exitgate_testnet::onionoo::Behaviour;
use exitgate_testnet::{ExitSpec, Onionoo, Relay, Role, Sandbox, fetch};
use serde_json::Value;
use tokio::net::TcpStream;

fn relay(sandbox: &Sandbox, name: &str, outbound: u8, policy: &[&str]) -> Relay {
    let spec = ExitSpec::new(name, "US").policy(policy);
    Relay {
        name: spec.name,
        role: Role::Exit,
        fingerprint: format!("{outbound:040X}"),
        ip: sandbox.ip(1, 1),
        outbound: sandbox.ip(outbound, 1),
        country: spec.country,
        outbound_country: "CA".into(),
        policy: spec.policy,
    }
}

async fn get(url: &str, path: &str, headers: &[(&str, &str)]) -> fetch::Got {
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    fetch::get_with(TcpStream::connect(address).await.unwrap(), "x", path, headers).await.unwrap()
}

async fn onionoo(sandbox: &Arc<Sandbox>) -> Onionoo {
    let relays =
        [relay(sandbox, "plain", 1, &["accept *:*"]), relay(sandbox, "split", 2, &["reject *:443", "accept *:*"])];
    Onionoo::start(sandbox, &relays).await.unwrap()
}

#[tokio::test]
async fn onionoo_describes_exactly_these_relays() {
    let sandbox = Sandbox::claim().unwrap();
    let onionoo = onionoo(&sandbox).await;
    let got = get(&onionoo.url(), "/details?type=relay&running=true&flag=Exit", &[]).await;
    assert_eq!((got.status, &got.headers["content-type"]), (200, &"application/json; charset=utf-8".parse().unwrap()));
    let document: Value = serde_json::from_slice(&got.body).unwrap();
    let split = &document["relays"][1];
    assert_eq!(document["relays"].as_array().unwrap().len(), 2);
    assert_eq!(split["or_addresses"][0], format!("{}:9001", sandbox.ip(1, 1)));
    assert_eq!((&split["exit_addresses"][0], &split["country"]), (&sandbox.ip(2, 1).to_string().into(), &"us".into()));
    assert_eq!(split["exit_policy_summary"]["reject"][0], "443");
    let list = get(&onionoo.url(), "/exit-addresses", &[]).await.text();
    assert!(list.contains(&format!("ExitAddress {} ", sandbox.ip(2, 1))), "{list}");
    assert_eq!(get(&onionoo.url(), "/details?exits=1", &[]).await.status, 400);
    let few = get(&onionoo.url(), "/details?limit=1&fields=nickname", &[]).await.text();
    assert!(few.contains("\"relays\":[\n{\"nickname\":\"plain\"}\n],\n\"relays_truncated\":1,"), "{few}");
}

#[tokio::test]
async fn onionoo_answers_conditionally_until_something_is_published() {
    let sandbox = Sandbox::claim().unwrap();
    let onionoo = onionoo(&sandbox).await;
    let first = get(&onionoo.url(), "/details", &[]).await;
    let (since, tag) = (first.headers["last-modified"].to_str().unwrap(), first.headers["etag"].to_str().unwrap());
    for condition in [("If-Modified-Since", since), ("If-None-Match", tag)] {
        let again = get(&onionoo.url(), "/details", &[condition]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{condition:?}");
    }
    onionoo.edit(|relays| relays.truncate(1));
    let changed = get(&onionoo.url(), "/details", &[("If-Modified-Since", since)]).await;
    assert_eq!((changed.status, changed.text().matches("nickname").count()), (200, 1));
    assert_eq!(onionoo.asked().iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 304, 304, 200]);
}

#[tokio::test]
async fn onionoo_compresses_a_network_of_real_size() {
    let sandbox = Sandbox::claim().unwrap();
    let onionoo = onionoo(&sandbox).await;
    onionoo.add_synthetic(2_000);
    let plain = get(&onionoo.url(), "/details", &[]).await;
    let packed = get(&onionoo.url(), "/details", &[("Accept-Encoding", "gzip")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 5 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut unpacked).unwrap();
    assert!(unpacked == plain.text());
    assert_eq!(serde_json::from_str::<Value>(&unpacked).unwrap()["relays"].as_array().unwrap().len(), 2_002);
}

#[tokio::test]
async fn onionoo_has_the_ordered_faults() {
    let sandbox = Sandbox::claim().unwrap();
    let onionoo = onionoo(&sandbox).await;
    onionoo.behave(Behaviour::Status(503));
    assert_eq!(get(&onionoo.url(), "/details", &[]).await.status, 503);
    onionoo.behave(Behaviour::NotModified);
    assert_eq!(get(&onionoo.url(), "/details", &[]).await.status, 304);
    onionoo.behave(Behaviour::Garbage);
    assert!(get(&onionoo.url(), "/details", &[]).await.text().starts_with("<html>"));
    onionoo.behave(Behaviour::Truncated);
    let half = get(&onionoo.url(), "/details", &[]).await;
    let announced: usize = half.headers["content-length"].to_str().unwrap().parse().unwrap();
    assert!((1..=announced / 2).contains(&half.body.len()), "{} of {announced}", half.body.len());
    onionoo.behave(Behaviour::Normal);
    let now: Value = serde_json::from_slice(&get(&onionoo.url(), "/details", &[]).await.body).unwrap();
    onionoo.behave(Behaviour::Stale(30));
    let old: Value = serde_json::from_slice(&get(&onionoo.url(), "/details", &[]).await.body).unwrap();
    assert!(old["relays_published"].as_str().unwrap() < now["relays_published"].as_str().unwrap());
}
