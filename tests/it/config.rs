//! The messages for broken configurations, word for word, and configurations that must stay valid.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use exitgate::config::{self, Auth, Config, Exposure, Groups, Origin, SelectorFacts};
use exitgate::exit::Source;

/// A minimal grammar of selectors, so that these messages do not change with the real one.
fn selector(text: &str, groups: &Groups) -> Result<SelectorFacts, String> {
    let mut tokens = text.split('-');
    let geo = tokens.next().unwrap_or_default();
    if geo.len() != 2 && !["any", "nonus"].contains(&geo) && groups.get(geo).is_none() {
        return Err(format!("`{geo}` is neither a country nor a group"));
    }
    match tokens.find(|token| !["strict", "source", "any", "direct"].contains(token)) {
        Some(token) => Err(format!("`{token}` is not a token")),
        None if text.contains("-source-direct") => Ok(SelectorFacts { sources: &[Source::Direct], ttl: None }),
        None if text.contains("-source-") => Ok(SelectorFacts { sources: &Source::BUILT_IN, ttl: None }),
        None => Ok(SelectorFacts { sources: &[], ttl: None }),
    }
}

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn parse(name: &str, text: &str) -> Result<(Config, String), String> {
    let (config, warnings) = config::parse(name, text, [], Some(&selector)).map_err(|faults| faults.to_string())?;
    Ok((config, warnings.iter().map(|warning| format!("{warning}\n")).collect()))
}

#[test]
fn each_broken_file_has_its_message() {
    let files = files("tests/config/invalid");
    assert!(files.len() >= 20, "only {} broken files", files.len());
    for path in files {
        let said = parse(name(&path), &fs::read_to_string(&path).unwrap()).expect_err(name(&path));
        insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../config/invalid", omit_expression => true }, {
            insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), said);
        });
    }
}

#[test]
fn valid_files_stay_valid() {
    for path in files("tests/config/valid") {
        let (config, _) = parse(name(&path), &fs::read_to_string(&path).unwrap()).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(config::diff(&config, &config).to_string(), "nothing changed");
        if name(&path) == "minimal.toml" {
            assert_eq!(config::diff(&config, &Config::default()).to_string(), "nothing changed");
        }
    }
}

/// The examples name files in `/etc/exitgate`, which this test makes in a temporary folder.
#[test]
fn the_examples_are_usable() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let fixture = |file: &str| fs::read(format!("tests/config/files/{file}")).unwrap();
    for (path, content) in [
        ("keys/crawl", fixture("team.key")),
        ("keys/qa", b"another-fine-secret".to_vec()),
        ("keys/admin", b"admin-admin-admin".to_vec()),
        ("keys/prometheus", b"prometheus-reads".to_vec()),
        ("tls/chain.pem", fixture("cert.pem")),
        ("tls/key.pem", fixture("key.pem")),
        ("private/ca.pem", fixture("cert.pem")),
        ("private/geoip", b"0,1,DE".to_vec()),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut seen = Vec::new();
    for path in files("config/examples") {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/etc/exitgate", root).replace("/var/log/exitgate", root);
        let (config, _) = parse(name(&path), &text).unwrap_or_else(|why| panic!("{why}"));
        seen.push((name(&path).to_owned(), config.exposure, config.routes.len()));
    }
    let closed = Exposure::default();
    let open = Exposure { make_key: true, make_token: true };
    let want = [
        ("containers.toml", open, 1),
        ("home.toml", closed, 2),
        ("private-network.toml", closed, 1),
        ("team.toml", closed, 2),
    ];
    assert_eq!(seen, want.map(|(name, exposure, routes)| (name.to_owned(), exposure, routes)));
}

#[test]
fn missing_secrets_and_open_ports_are_found() {
    let exposure = |text: &str| parse("t", text).unwrap().0.exposure;
    let key = "[[gateway.keys]]\nname = 'a'\nkey = 'correct-horse-battery'\n";
    for (text, make_key, make_token) in [
        ("", false, false),
        ("[gateway]\nlisten = ['127.0.0.1:1', '127.9.9.9:1', '[::1]:1', '[::ffff:127.0.0.1]:1']", false, false),
        ("[gateway]\nlisten = ['127.0.0.1:1', '192.0.2.1:1']", true, false),
        ("[gateway]\nroute_bind = '::'", true, false),
        (&format!("[gateway]\nlisten = '0.0.0.0:1'\n{key}"), false, false),
        ("[api]\nlisten = '[::]:1'", false, true),
        ("[api]\nlisten = '[::]:1'\nread_token = 'only-for-reading'", false, true),
        ("[api]\nlisten = '[::]:1'\ntoken = 'correct-horse-battery'", false, false),
    ] {
        assert_eq!(exposure(text), Exposure { make_key, make_token }, "{text}");
    }
    let auth = |gateway: &str, route: &str| {
        let text = format!("[gateway]\n{gateway}\n[[routes]]\nname = 'a'\nselector = 'us'\n{route}");
        parse("t", &text).unwrap().0.routes[0].auth
    };
    assert_eq!(auth("", ""), Auth::Open);
    assert_eq!(auth("", "auth = 'key'"), Auth::Key);
    assert_eq!(auth("route_bind = '0.0.0.0'", ""), Auth::Key);
    assert_eq!(auth("route_bind = '0.0.0.0'", "allow = ['10.0.0.0/8']"), Auth::Key);
    assert_eq!(auth("route_bind = '0.0.0.0'", "auth = 'open'\nallow = ['10.0.0.0/8']"), Auth::Open);
}

#[test]
fn probable_mistakes_get_a_warning() {
    let warnings = |text: &str| parse("t", text).unwrap().1;
    assert_eq!(warnings(""), "");
    let dir = tempfile::tempdir().unwrap();
    let mode = |mode| {
        for file in ["cert.pem", "key.pem", "team.key"] {
            let copy = dir.path().join(file);
            fs::copy(Path::new("tests/config/files").join(file), &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let text = fs::read_to_string("tests/config/valid/keys.toml").unwrap();
    let text = text.replace("tests/config/files", dir.path().to_str().unwrap());
    let all = [
        text.as_str(),
        "[tor]\nenabled = false\ncircuits_per_second = 50.0\n",
        "[sources.onionoo]\nevery = '5m'\n",
        "[check]\necho = ['https://api.ipify.org']\n",
        "[groups]\ndach = ['de', 'DE']\n",
    ]
    .concat()
    .replace("token = \"short\"", "listen = '0.0.0.0:8080'\nread_token = \"short\"");
    mode(0o600);
    insta::assert_snapshot!("warnings", warnings(&all));
    mode(0o644);
    let open: Vec<_> = warnings(&text).lines().filter(|line| line.contains("every user")).map(str::to_owned).collect();
    assert_eq!(open.len(), 2, "the client's key and the certificate's: {open:?}");
}

fn exitgate(dir: &Path, args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exitgate"));
    command.args(args).current_dir(dir).env_clear().envs(vars.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_config_reports_every_fault_and_exits_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str], vars: &[(&str, &str)]| said(&exitgate(dir.path(), args, vars));
    assert_eq!(run(&["check-config"], &[]), (Some(0), "config ok: defaults\n".into(), String::new()));
    let (code, stdout, stderr) = run(&["check-config"], &[("EXITGATE__TOR__ENGINS", "2")]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    assert_eq!(
        stderr,
        "EXITGATE__TOR__ENGINS: tor.engins is not a key\n    did you mean `engines`?\n1 fault in the configuration\n"
    );

    fs::write(dir.path().join("exitgate.toml"), "[gateway]\nlisten = '0.0.0.0:1080'\n").unwrap();
    let (code, stdout, stderr) = run(&["check-config"], &[]);
    assert_eq!((code, stdout.as_str()), (Some(0), "config ok: ./exitgate.toml\n"));
    assert!(stderr.starts_with("warning: ./exitgate.toml:1: gateway.keys is empty"), "{stderr}");

    fs::write(dir.path().join("bad.toml"), "[tor]\nengines = 'x'\nbinari = ''\n").unwrap();
    for command in ["check-config", "serve", "reload", "health"] {
        let (code, stdout, stderr) = run(&[command, "--config", "bad.toml"], &[]);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{command}");
        assert!(stderr.ends_with("2 faults in the configuration\n"), "{command}: {stderr}");
    }
    let (code, _, stderr) = run(&["check-config", "--config", "nowhere.toml"], &[]);
    assert_eq!(code, Some(64));
    assert_eq!(
        stderr,
        "nowhere.toml: this file does not exist\n    correct --config, or leave it out\n1 fault in the configuration\n"
    );
}

#[test]
fn a_secret_in_a_world_readable_file_gets_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "[api]\ntoken = 'correct-horse-battery'\n").unwrap();
    let warned = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        said(&exitgate(dir.path(), &["check-config", "-c", "c.toml"], &[])).2
    };
    assert_eq!(warned(0o600), "");
    assert!(
        warned(0o644).starts_with("warning: c.toml:2: api.token is in a file that every user"),
        "{}",
        warned(0o644)
    );
}

#[test]
fn the_command_line_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| said(&exitgate(dir.path(), args, &[("COLUMNS", "100")]));
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("help", help);
    for command in [
        &["init"][..],
        &["serve"],
        &["check-config"],
        &["reload"],
        &["health"],
        &["test-exits"],
        &["store"],
        &["store", "check"],
        &["completions"],
        &["routes"],
        &["routes", "list"],
        &["routes", "create"],
        &["routes", "show"],
        &["routes", "patch"],
        &["routes", "rotate"],
        &["routes", "report"],
        &["routes", "delete"],
        &["exits"],
        &["engines"],
        &["sources"],
        &["bans", "list"],
        &["bans", "add"],
        &["bans", "lift"],
        &["connections"],
        &["why"],
        &["man"],
    ] {
        let (code, help, _) = run(&[command, &["--help"]].concat());
        assert_eq!(code, Some(0), "{command:?}");
        insta::assert_snapshot!(format!("help_{}", command.join("_").replace('-', "_")), help);
    }
    let (code, page, _) = run(&["man"]);
    assert!(code == Some(0) && page.contains(".TH exitgate 1") && page.contains("routes"), "{page}");
    let folder = dir.path().to_str().unwrap();
    assert_eq!(run(&["man", folder]).0, Some(0));
    assert!(dir.path().join("exitgate-routes-create.1").exists());
    let (code, stdout, stderr) = run(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("Usage: exitgate"), "{stdout}");
    assert_eq!(run(&["--version"]), (Some(0), format!("exitgate {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    assert_eq!(run(&["completions", "bash"]).0, Some(0));
    for wrong in [&["sreve"][..], &["serve", "--confg", "x"], &["completions", "tcsh"], &["serve", "extra"]] {
        let (code, stdout, stderr) = run(wrong);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{wrong:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

/// What the commands print when the pipe is closed, the database is missing, or the gateway is not there.
#[test]
fn commands_fail_with_a_reason_and_a_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = said(&exitgate(dir.path(), &["store", "check"], &[]));
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    assert!(
        stderr.contains("there is no database at ./exitgate-data/exitgate.db") && stderr.contains("-c FILE"),
        "{stderr}"
    );

    // Port 1 of loopback is closed.
    let nowhere = &[("EXITGATE_URL", "http://127.0.0.1:1")][..];
    for command in [&["routes", "list"][..], &["test-exits"]] {
        let (code, stdout, stderr) = said(&exitgate(dir.path(), command, nowhere));
        assert_eq!((code, stdout.as_str()), (Some(69), ""), "{command:?}");
        assert!(stderr.contains("cannot connect to http://127.0.0.1:1") && stderr.contains("EXITGATE_URL"), "{stderr}");
    }
    assert_eq!(said(&exitgate(dir.path(), &["health"], nowhere)).0, Some(69));
    assert_eq!(said(&exitgate(dir.path(), &["health"], &[("EXITGATE_URL", "gate.example")])).0, Some(69));
    assert_eq!(said(&exitgate(dir.path(), &["exits"], &[("EXITGATE_URL", "gate.example")])).0, Some(64));

    for line in ["man", "completions bash"] {
        let closed = Command::new(env!("CARGO_BIN_EXE_exitgate"))
            .args(line.split(' '))
            .current_dir(dir.path())
            .stdout(closed_pipe())
            .output()
            .unwrap();
        assert_eq!(said(&closed), (Some(0), String::new(), String::new()), "{line}");
    }
}

/// With a cargo that builds nothing: the target copies what a build left.
#[test]
fn make_install_copies_the_binary_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (tools, target, prefix) = (dir.path().join("tools"), dir.path().join("target"), dir.path().join("new/bin"));
    fs::create_dir_all(&tools).unwrap();
    fs::create_dir_all(target.join("release")).unwrap();
    fs::write(target.join("release/exitgate"), "binary").unwrap();
    fs::write(tools.join("cargo"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tools.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let made = Command::new("make")
        .args(["install", &format!("PREFIX={}", prefix.display())])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("DESTDIR")
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let (code, stdout, stderr) = said(&made);
    let installed = prefix.join("exitgate");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&format!("installed: {}", installed.display())), "{stdout}");
    assert_eq!(fs::read_to_string(&installed).unwrap(), "binary");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
}

/// The writing end of a pipe that nobody reads any more.
fn closed_pipe() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().unwrap();
    writer
}

#[test]
fn the_unit_waits_longer_than_a_drain_takes() {
    let unit = fs::read_to_string("config/exitgate.service").unwrap();
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s')).unwrap();
    let stop = std::time::Duration::from_secs(stop.parse().unwrap());
    // After the drain, the kill and tor's own end take some seconds more.
    assert!(stop >= Config::default().lifecycle.drain + std::time::Duration::from_secs(15));
    assert!(unit.contains("\nKillMode=mixed\n") && unit.contains("\nRestartPreventExitStatus=64\n"));
}

#[test]
fn the_socket_unit_has_the_addresses_of_the_defaults() {
    let unit = fs::read_to_string("config/examples/exitgate.socket").unwrap();
    let sockets: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let Config { gateway, api, .. } = Config::default();
    let listen: Vec<_> = gateway.listen.iter().chain(api.listen.iter()).map(ToString::to_string).collect();
    assert_eq!(sockets, listen);
    assert!(!unit.contains("\nAccept="), "exitgate accepts the connections itself");
}

#[test]
fn a_file_is_found_where_it_should_be() {
    let asked = config::find(Some(Path::new("/x/y.toml")));
    assert_eq!(asked, Origin::File("/x/y.toml".into()));
}
