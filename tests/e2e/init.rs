//! `exitgate init`: what it writes is a configuration with which a gateway serves, and what it prints works.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use exitgate_testnet::Testbed;
use serde_json::Value;

use crate::gateway::{Gateway, run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_exitgate");

/// Runs exitgate, and returns its exit code, its stdout and its stderr.
async fn exitgate(args: &[&str]) -> (i32, String, String) {
    let output = run(PROGRAM, args).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The settings of the private network as environment variables, because the configuration file must stay as it is.
fn environment(bed: &Testbed) -> Vec<(String, OsString)> {
    let lines = bed.gateway_lines()
        + "\ntor.circuits_per_second = 500.0\ncheck.per_second = 100.0\nsources.onionoo.enabled = false";
    let variable = |line: &str| {
        let (key, value) = line.split_once(" = ").unwrap();
        (format!("EXITGATE__{}", key.replace('.', "__").to_ascii_uppercase()), value.trim_matches('"').into())
    };
    lines.lines().map(variable).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_writes_serves_and_what_it_prints_works() {
    let bed = Testbed::start().await.unwrap();
    let (ip, folder) = (bed.sandbox.ip(200, 1), bed.sandbox.folder().to_owned());
    let (listen, api) = (format!("{ip}:1080"), format!("{ip}:8080"));
    let dir = folder.to_str().unwrap();
    let (code, said, errors) = exitgate(&["init", "--dir", dir, "--listen", &listen, "--api-listen", &api]).await;
    assert_eq!((code, errors.as_str()), (0, ""));

    let (file, data) = (folder.join("exitgate.toml"), folder.join("exitgate-data"));
    let (key_file, token_file) = (data.join("gateway.key"), data.join("api.token"));
    assert_eq!((mode(&data), mode(&key_file), mode(&token_file)), (0o700, 0o600, 0o600));
    let (key, token) = (fs::read_to_string(&key_file).unwrap(), fs::read_to_string(&token_file).unwrap());
    let text = fs::read_to_string(&file).unwrap();
    for secret in [key.trim(), token.trim()] {
        assert!(secret.len() >= 32 && !said.contains(secret) && !text.contains(secret), "a secret is shown");
    }
    let at = file.to_str().unwrap();
    assert!(said.contains(&format!("    exitgate serve --config {at}\n")), "{said}");
    assert_eq!(exitgate(&["check-config", "-c", at]).await, (0, format!("config ok: {at}\n"), String::new()));

    let variables = environment(&bed);
    let env: Vec<(&str, &OsStr)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_os_str())).collect();
    let gateway = Gateway::launch_in(&bed.sandbox, ip, &text, &env);
    gateway.wait_ready().await;
    // The printed line, with a page of the private network in place of the public one.
    let line = said.lines().map(str::trim).find(|line| line.starts_with("curl -x ")).unwrap();
    let line = line.replace("https://check.torproject.org/api/ip", &bed.web.http("echo.test", "/ip"));
    assert!(line.contains("/ip") && !line.contains("torproject"), "{line}");
    let shell = |line: String| async move {
        let output = run("sh", &["-c", &format!("{line} -sS -w ' %{{http_code}}'")]).await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let got = until(|| shell(line.clone()), |got| got.ends_with(" 200")).await;
    let us: Vec<String> = bed.network.exits().iter().map(|relay| format!("{} 200", relay.outbound)).collect();
    assert!(us.contains(&got), "{got:?} is the answer through no exit: {us:?}");
    let without_key = shell(line.replace("us:$(cat", "us:x$(cat").replace("socks5h", "http")).await;
    assert!(without_key.ends_with(" 407"), "a wrong key is accepted: {without_key}");
    // The commands find the token, and nobody else gets in.
    assert_eq!(gateway.api("/proxies").await.status, 401);
    let (code, routes, errors) = exitgate(&["routes", "list", "--json", "-c", at]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    let routes: Value = serde_json::from_str(&routes).unwrap();
    assert_eq!(routes["total"], 0, "{routes}");
    let ready = said.lines().map(str::trim).find(|line| line.starts_with("curl http")).unwrap();
    assert!(shell(ready.to_owned()).await.ends_with(" 200"), "{ready}");
}

#[tokio::test]
async fn init_overwrites_nothing() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("new/gate");
    let dir = folder.to_str().unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(exitgate(&["init", "--dir", dir]).await.0, 0, "a missing folder is created");
    let (file, key) = (read("exitgate.toml"), read("exitgate-data/gateway.key"));
    fs::write(folder.join("exitgate.toml"), "# mine\n").unwrap();

    let (code, said, errors) = exitgate(&["init", "--dir", dir]).await;
    assert_eq!((code, said.as_str(), read("exitgate.toml").as_str()), (64, "", "# mine\n"));
    assert!(errors.starts_with("exitgate: ") && errors.contains("exists already; --force"), "{errors}");

    let (code, said, _) = exitgate(&["init", "--dir", dir, "--force"]).await;
    assert_eq!((code, read("exitgate.toml"), read("exitgate.toml.1").as_str()), (0, file, "# mine\n"));
    assert_eq!(read("exitgate-data/gateway.key"), key, "clients know the old key");
    assert!(said.contains("used again: ") && said.contains("exitgate.toml.1 (the configuration until now)"), "{said}");

    // A configuration that would not start is not written.
    let other = root.path().join("other");
    let args =
        ["init", "--dir", other.to_str().unwrap(), "--listen", "127.0.0.1:1080", "--api-listen", "127.0.0.1:1080"];
    let (code, _, errors) = exitgate(&args).await;
    assert!(code == 64 && errors.contains("api.listen") && !other.join("exitgate.toml").exists(), "{code} {errors}");
    assert_eq!(exitgate(&["init", "--dir", dir, "--listen", "here"]).await.0, 64);
}
