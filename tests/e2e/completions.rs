//! The completions of real shells, which ask a running gateway for the names of routes.

use std::path::Path;
use std::process::Command;

use exitgate_testnet::Sandbox;

use crate::gateway::{Gateway, until};

/// A gateway without Tor that needs a token, and has three routes.
fn config(sandbox: &Sandbox) -> String {
    let (ip, data) = (sandbox.ip(200, 1), sandbox.folder().join("gateway"));
    let route = |name: &str, port: u16| {
        format!("[[routes]]\nname = \"{name}\"\nselector = \"any-source-public\"\nport = {port}\nauth = \"open\"\n")
    };
    let routes = [route("shop-us", 20001), route("shop-de", 20002), route("news", 20003)].concat();
    format!(
        "data_dir = {data:?}\ngateway.listen = \"{ip}:1080\"\ngateway.route_bind = \"{ip}\"\napi.listen = \"{ip}:8080\"\n\
         api.token = \"a-token-for-completions\"\ntor.enabled = false\nsources.onionoo.enabled = false\n{routes}"
    )
}

/// Runs a program in which `exitgate` is the tested binary, and returns its stdout and stderr.
fn run(program: &str, args: &[&str]) -> (String, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_exitgate"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("TERM", "xterm").env_remove("EXITGATE_URL").env_remove("EXITGATE_TOKEN");
    let output = command.output().unwrap_or_else(|error| panic!("{program} (apt: {program}): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Writes the completion script of a shell, and returns its path.
fn script(sandbox: &Sandbox, shell: &str) -> String {
    let path = sandbox.folder().join(format!("completions.{shell}"));
    let (text, errors) = run("exitgate", &["completions", shell]);
    assert_eq!(errors, "");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What bash offers for the last word of `line`. The shell splits the line as readline does.
fn in_bash(script: &str, line: &str) -> Vec<String> {
    let code = r#"source "$1"
        [[ $(complete -p exitgate) == *'-F _exitgate_with_route_names'* ]] || { echo "another function is registered"; exit; }
        read -ra COMP_WORDS <<< "${2//=/ = }"; [[ $2 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _exitgate_with_route_names exitgate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let (out, errors) = run("bash", &["--norc", "-c", code, "bash", script, line]);
    assert_eq!(errors, "", "{line}");
    out.lines().map(str::to_owned).collect()
}

fn in_fish(script: &str, line: &str) -> Vec<String> {
    let code = "source $argv[1]; complete -C $argv[2]";
    let (out, errors) = run("fish", &["--no-config", "-c", code, script, line]);
    assert_eq!(errors, "", "{line}");
    out.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// What zsh makes of `line` after one Tab, in a terminal of its own. The line must have only one completion.
fn in_zsh(script: &str, line: &str) -> String {
    let code = r#"zmodload zsh/zpty
        zpty shell 'PS1= zsh -f -i'
        say() { zpty -w shell "$1"; }
        say 'unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D'
        say "source $1"
        say "show() { BUFFER=\": ; print -r -- '<<'\${(q)BUFFER}'>>'\"; zle accept-line }; zle -N show; bindkey '^Xp' show; print rea''dy"
        zpty -r -m shell seen '*ready*'
        zpty -n -w shell "$2"$'\t\x18p'
        zpty -r -m shell seen '*<<*>>*<<*>>*'
        print -r -- "$seen""#;
    let (out, errors) = run("timeout", &["30", "zsh", "-f", "-c", code, "zsh", script, line]);
    let shown = out.rsplit("<<").next().and_then(|rest| rest.split(">>").next()).unwrap_or_default();
    assert!(!shown.is_empty(), "{line}: {out:?} {errors}");
    shown.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_the_names_of_routes() {
    let sandbox = Sandbox::claim().unwrap();
    let ip = sandbox.ip(200, 1);
    let gateway = Gateway::launch_on(&sandbox, ip, &config(&sandbox));
    let alive = until(|| gateway.api("/health"), |got| got.status == 200).await;
    assert_eq!(alive.status, 200, "{}", gateway.log());
    let file = sandbox.folder().join("exitgate.toml").to_str().unwrap().to_owned();
    let [bash, fish, zsh] = ["bash", "fish", "zsh"].map(|shell| script(&sandbox, shell));

    for line in ["routes -c FILE show shop", "routes --config=FILE delete shop", "why -c FILE shop"] {
        let line = format!("exitgate {}", line.replace("FILE", &file));
        assert_eq!(in_bash(&bash, &line), ["shop-de", "shop-us"], "bash: {line}");
        assert_eq!(in_fish(&fish, &line), ["shop-de", "shop-us"], "fish: {line}");
    }
    let cut = format!("exitgate connections -c {file} --route n");
    assert_eq!((in_bash(&bash, &cut), in_fish(&fish, &cut)), (vec!["news".to_owned()], vec!["news".to_owned()]));
    for (line, whole) in [("routes -c FILE rotate n", "news"), ("connections -c FILE --route shop-u", "shop-us")] {
        let line = format!("exitgate {}", line.replace("FILE", &file));
        let stem = line.rsplit_once(' ').unwrap().0;
        assert_eq!(in_zsh(&zsh, &line), format!("{stem} {whole}"), "zsh: {line}");
    }
    // Names are offered only where a route is expected.
    let offered = in_bash(&bash, &format!("exitgate exits -c {file} "));
    assert!(!offered.iter().any(|word| word == "news"), "{offered:?}");
    assert_eq!(in_bash(&bash, "exitgate routes sh"), ["show"]);

    drop(gateway);
    // No gateway answers: the shell offers the rest, and shows no error.
    let line = format!("exitgate routes -c {file} show --");
    assert!(in_bash(&bash, &line).contains(&"--env".to_owned()));
    assert!(in_fish(&fish, &line).contains(&"--env".to_owned()));
    assert_eq!(in_bash(&bash, &format!("exitgate routes -c {file} show shop")), [""; 1]);
    assert_eq!(in_fish(&fish, &format!("exitgate routes -c {file} show shop")), [""; 0]);
    assert_eq!(in_zsh(&zsh, &format!("exitgate routes -c {file} sho")), format!("exitgate routes -c {file} show"));
}
