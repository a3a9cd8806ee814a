//! Where secrets could come to light: every page, every line, the process table, a dump of memory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::{STRAIGHT, Victim, head, named, serve, socks5, talk};
use crate::gateway::{curl, until};
use tokio::io::AsyncWriteExt as _;

/// What must be seen nowhere. Each is in use, and each has been sent rightly and wrongly.
const SECRETS: [&str; 6] = [
    "key-in-the-file-3f9a",
    "key-of-a-file-77c1",
    "token-of-the-api-0b5e",
    "token-of-a-reader-91d2",
    "login-of-a-list-c0de",
    "wrong-key-that-was-tried-44aa",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_seen_anywhere() {
    let sandbox = exitgate_testnet::Sandbox::claim().unwrap();
    let [inline, of_file, token, read_token, login, wrong] = SECRETS;
    let key_file = sandbox.folder().join("team.key");
    fs::write(&key_file, of_file).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    // One that can be read and one that cannot, each with its login.
    let list = format!(
        "http://user:{login}@{ip}:3128\nhttp://user:{login}@nowhere:1\n{ip}:99999:user:{login}\n\
         {{\"ip\":\"x\",\"password\":\"{login}\"}}\n",
        ip = sandbox.ip(70, 1)
    );
    let list: &'static str = list.leak();
    let server = serve(sandbox.ip(71, 1), move |mut stream, _| async move {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let server = server.await;
    let more = format!(
        "gateway.allow_private_targets = true\napi.token = \"{token}\"\napi.read_token = \"{read_token}\"\n\
         gateway.keys = [{{ name = \"a\", key = \"{inline}\" }}, {{ name = \"b\", key_file = {key_file:?} }}]\n\n\
         [[sources.list]]\nname = \"bought\"\nurl = \"http://{server}/list\"\n\n\
         [[routes]]\nname = \"out\"\nselector = \"{STRAIGHT}\"\nport = 20001\n"
    );
    let victim = Victim::start_in(sandbox, &more, &[]).await;
    let bearer = format!("Authorization: Bearer {token}");
    let ask = async |path: &str| victim.gateway.ask(&["-H", &bearer], path).await;
    let mut events = tokio::process::Command::new("curl")
        .args(["-sN", "--max-time", "60", "-H", &bearer, &format!("http://{}/events", victim.api())])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let mut seen = Vec::new();
    for key in [inline, of_file, wrong] {
        for line in ["GET http://exit.gate/", "GET http://nx.invalid/", "CONNECT 127.0.0.1:1", "BAD", "GET /"] {
            seen.push(talk(victim.shared(), head(line, STRAIGHT, key).as_bytes()).await);
        }
        seen.push(talk(victim.shared(), head("GET http://exit.gate/", "us-nonsense", key).as_bytes()).await);
        seen.push(talk(victim.shared(), &socks5(STRAIGHT.as_bytes(), key.as_bytes(), &named("x.invalid"), 80)).await);
        seen.push(talk(victim.shared(), &socks5(b"us-nonsense", key.as_bytes(), &named("x.invalid"), 80)).await);
        seen.push(talk((victim.ip, 20001).into(), head("OPTIONS http://exit.gate/", "", key).as_bytes()).await);
    }
    let trace = head("TRACE http://x.test/", STRAIGHT, inline).replace("Connection", "Max-Forwards: 0\r\nConnection");
    seen.push(talk(victim.shared(), trace.as_bytes()).await);
    let listed = |got: &crate::gateway::Got| got.body.contains("bought") && !got.body.contains("\"never\"");
    until(|| ask("/sources"), listed).await;

    // Every page that can be read, and every refusal.
    let page: serde_json::Value = serde_json::from_str(&ask("/openapi.json").await.body).unwrap();
    for (path, methods) in page["paths"].as_object().unwrap() {
        let path = path.replace("{route}", "out").replace("{id}", "direct").replace("{name}", "bought");
        if methods.get("get").is_some() && path != "/events" {
            let got = ask(&path).await;
            seen.push(format!("{path} {:?} {}", got.headers, got.body).into_bytes());
        }
    }
    for args in [
        vec!["-H", "Authorization: Bearer wrong-key-that-was-tried-44aa"],
        vec![
            "-H",
            &bearer,
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            "{\"selector\":\"us-nonsense\"}",
        ],
        vec!["-H", &bearer, "-X", "POST", "-H", "Content-Type: application/json", "-d", "{}"],
    ] {
        let got = victim.gateway.ask(&args, "/proxies").await;
        seen.push(format!("{:?} {}", got.headers, got.body).into_bytes());
    }
    let reload = ["-H", &bearer, "-X", "POST", "-H", "Content-Type: application/json", "-d", "{}"];
    seen.push(victim.gateway.ask(&reload, "/reload").await.body.into_bytes());
    let (reader, metrics) = (format!("Authorization: Bearer {read_token}"), format!("http://{}/metrics", victim.api()));
    seen.push(curl(&["-H", &reader, &metrics]).await.body.into_bytes());

    let _ = events.start_kill();
    seen.push(events.wait_with_output().await.unwrap().stdout);
    seen.push(victim.gateway.log().into_bytes());
    let proc = |file: &str| fs::read(format!("/proc/{}/{file}", victim.gateway.pid())).unwrap();
    seen.extend([proc("cmdline"), proc("environ"), proc("comm")]);
    for text in &seen {
        let text = String::from_utf8_lossy(text);
        for secret in SECRETS {
            let at = text.find(secret);
            let shown = at.map(|at| &text[text.floor_char_boundary(at.saturating_sub(300))..at + secret.len()]);
            assert_eq!(shown, None, "{secret} came to light");
        }
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_never_dumped_and_files_are_their_owners_alone() {
    let victim = Victim::start("").await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", victim.gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    // One byte: no file, and no program that is handed the dump either.
    assert_eq!(words[4..6], ["1", "1"], "{core}");
    let data = victim.sandbox.folder().join("data");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} can be read by others", path.display());
    }
}
