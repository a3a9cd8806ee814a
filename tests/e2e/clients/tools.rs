//! Programs that are pointed at a gateway, or forced through one.

use std::fs;
use std::path::Path;

use exitgate_testnet::Testbed;
use serde_json::Value;

use super::scripts::sources_of;
use crate::gateway::{Gateway, curl, run};

/// Runs a program and returns what it said; fails with what it complained of.
async fn said(program: &str, args: &[&str]) -> String {
    let output = run(program, args).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The exit that the gateway names for a user.
async fn named(gateway: &Gateway, user: &str) -> String {
    let said = curl(&["-x", &format!("http://{user}:key@{}", gateway.addr()), "http://exit.gate/"]).await;
    let said: Value = serde_json::from_str(&said.body).unwrap_or_else(|_| panic!("{} {}", said.body, said.errors));
    said["exit"]["ip"].as_str().unwrap().to_owned()
}

/// A repository with some history, served as files; its last commit.
async fn repository(bed: &Testbed, at: &Path) -> String {
    let git = |args: &'static [&'static str]| async move {
        let mut all = vec!["-C", at.to_str().unwrap(), "-c", "user.name=a", "-c", "user.email=a@b.test"];
        all.extend(args);
        said("git", &all).await
    };
    fs::create_dir(at).unwrap();
    git(&["init", "-q", "-b", "main"]).await;
    for n in 0..5 {
        fs::write(at.join(format!("file{n}")), vec![n; 50_000]).unwrap();
        git(&["add", "."]).await;
        git(&["commit", "-q", "-m", "one more"]).await;
    }
    git(&["update-server-info"]).await;
    bed.web.serve_folder("repo", &at.join(".git"));
    git(&["rev-parse", "HEAD"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_wget_fetches() {
    let bed = Testbed::start().await.unwrap();
    let repo = tempfile::tempdir().unwrap();
    let last = repository(&bed, &repo.path().join("repo")).await;
    // Git and libcurl's "any" wait to be asked before they say who they are: a gateway with keys asks, and one that is told to.
    for asks in ["gateway.keys = [{ name = \"a\", key = \"key\" }]", "gateway.require_username = true"] {
        let gateway = Gateway::start(&bed, asks).await;
        gateway.wait_tested(bed.network.exits().len()).await;
        clone_and_fetch(&bed, &gateway, &last).await;
    }
}

async fn clone_and_fetch(bed: &Testbed, gateway: &Gateway, last: &str) {
    let folder = tempfile::tempdir().unwrap();
    let url = bed.web.http("echo.test", "/files/repo");
    for scheme in ["socks5h", "http"] {
        let (user, to) = (format!("nonus-session-{scheme}"), folder.path().join(scheme));
        let (proxy, to) = (format!("http.proxy={scheme}://{user}:key@{}", gateway.addr()), to.to_str().unwrap());
        bed.web.forget();
        said("git", &["-c", &proxy, "clone", "-q", &url, to]).await;
        assert_eq!(said("git", &["-C", to, "rev-parse", "HEAD"]).await, last);
        let (seen, named) = (bed.web.sources("/files/repo/"), named(gateway, &user).await);
        assert!(seen.len() > 5 && seen.iter().all(|ip| ip.to_string() == named), "{seen:?}, named {named}");
    }

    let ca = format!("--ca-certificate={}", bed.web.ca_pem().display());
    let at = format!("http://{}", gateway.addr());
    for url in [bed.web.http("echo.test", "/ip?case=wget"), bed.web.https("echo.test", "/ip?case=wget")] {
        let (http, https) = (format!("http_proxy={at}"), format!("https_proxy={at}"));
        let who = ["--proxy-user=us-session-wget", "--proxy-password=key"];
        let args = ["-q", "-O", "-", "--tries=1", "-e", &http, "-e", &https, &ca, who[0], who[1], &url];
        assert_eq!(said("wget", &args).await, named(gateway, "us-session-wget").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_forced_through() {
    let bed = Testbed::start().await.unwrap();
    let gateway = Gateway::start(&bed, "").await;
    gateway.wait_tested(bed.network.exits().len()).await;
    let ca = bed.web.ca_pem().to_str().unwrap();
    let conf = bed.sandbox.folder().join("proxychains.conf");
    let (ip, port) = (gateway.addr().ip().to_string(), gateway.addr().port().to_string());
    for kind in ["socks5", "socks4", "http"] {
        let (case, password) = (format!("chained.{kind}"), if kind == "socks4" { "" } else { "key" });
        let user = format!("us-session-{case}");
        let text = format!("strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\n{kind} {ip} {port} {user} {password}\n");
        fs::write(&conf, text).unwrap();
        for url in [bed.web.http("echo.test", "/ip"), bed.web.https("echo.test", "/ip")] {
            let (url, conf) = (format!("{url}?case={case}"), conf.to_str().unwrap());
            let body =
                said("proxychains4", &["-f", conf, "curl", "-sS", "--max-time", "40", "--cacert", ca, &url]).await;
            assert_eq!(body, named(&gateway, &user).await, "{case}");
        }
        assert_eq!(sources_of(&bed, &case).len(), 2);
    }

    // On this network every address is a loopback one, and torsocks keeps those from Tor; what it resolves, and onion
    // services, whose addresses it makes up, go the way that they would go outside.
    let torsocks = ["-a", &ip, "-P", &port, "-u", "us-session-torsocks", "-p", "key"];
    let through = |args: &'static [&'static str]| {
        let mut all = torsocks.to_vec();
        all.extend(args);
        async move { said("torsocks", &all).await }
    };
    let resolved = through(&["python3", "-c", "import socket; print(socket.gethostbyname('echo.test'))"]).await;
    assert_eq!(resolved, bed.web.ip().to_string());
    let service = bed.network.onion("service", (bed.web.ip(), bed.web.http_port()).into()).await.unwrap();
    let mut all = torsocks.to_vec();
    let page = format!("http://{}/status/418", service.host);
    all.extend(["curl", "-sS", "--max-time", "50", "-o", "/dev/null", "-w", "%{http_code}", &page]);
    assert_eq!(said("torsocks", &all).await, "418");
    let at = gateway.addr().to_string();
    assert_eq!(said("tor-resolve", &["-5", "echo.test", &at]).await, bed.web.ip().to_string());
    assert_eq!(said("tor-resolve", &["-4", "echo.test", &at]).await, bed.web.ip().to_string());
}
