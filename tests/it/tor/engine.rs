//! The life of an engine: its states, its death, its guard, its end.

use std::path::PathBuf;

use exitgate::lifecycle::{Ended, Lifecycle};
use exitgate::route::CircuitDemand;
use exitgate::tor::{Alert, EngineState, PreflightError, Settings, Tor, preflight};
use tokio::sync::watch;
use tokio::time::timeout;

use super::rig::{self, PATIENCE, is_alive, signal, until};
use super::*;

/// The states of the first engine from now on, without repetitions, until it is in the last of these.
async fn follow(tor: &Tor, last: &str) -> Vec<EngineState> {
    let (mut changes, mut states) = (tor.changes(), Vec::<EngineState>::new());
    let work = async {
        loop {
            let state = tor.status()[0].state.clone();
            let done = state.as_str() == last;
            if states.last().is_none_or(|before| before.as_str() != state.as_str()) {
                states.push(state);
            }
            if done {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.expect("the state comes");
    states
}

fn words(states: &[EngineState]) -> Vec<&'static str> {
    states.iter().map(EngineState::as_str).collect()
}

on_both!(
    a_killed_tor_is_started_again_while_the_other_engine_serves,
    guards_are_kept_apart_and_over_a_restart,
    new_settings_are_taken_over_under_live_streams
);

async fn a_killed_tor_is_started_again_while_the_other_engine_serves(backend: Backend) {
    let bed = bed(backend).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = rig::settings(&bed.network, &dir);
    let rig = Rig::launch(&bed, dir, settings);
    let states = follow(&rig.tor, "ready").await;
    assert_eq!(words(&states), ["starting", "bootstrapping", "ready"]);
    rig.all_ready().await;

    let us1 = bed.network.relay("us1");
    let mut alerts = rig.tor.alerts();
    let [mut first, mut second] = <[_; 2]>::try_from(rig.echo_on_each(us1).await).ok().unwrap();
    let mut pauses = Vec::new();
    for deaths in 1..=2 {
        let pid = rig.tor.status()[0].pid.unwrap();
        signal("KILL", pid);
        rig.until("its death is noticed", |tor| tor.status()[0].restarts == deaths).await;
        let (states, ()) = tokio::join!(follow(&rig.tor, "ready"), async {
            for isolation in 0..20 {
                let (seen, _) = rig.seen_from(way(us1, isolation)).await.unwrap();
                assert_eq!(seen, us1.outbound.to_string());
            }
        });
        assert_eq!(words(&states), ["restarting", "starting", "bootstrapping", "ready"]);
        let EngineState::Restarting { pause, why } = &states[0] else { panic!("{states:?}") };
        assert!(why.contains("signal 9"), "{why}");
        pauses.push(*pause);
        assert_ne!(rig.tor.status()[0].pid, Some(pid));
        let heard = timeout(PATIENCE, alerts.recv()).await.unwrap().unwrap();
        assert!(matches!(heard, Alert::EngineLost { .. }), "{heard:?}");
    }
    // Each pause is between half and all of its step, and the steps double: 250 to 500 ms, then 500 to 1000 ms.
    assert!(pauses[0].as_millis() >= 250 && pauses[1].as_millis() >= 500, "{pauses:?}");
    first.ended().await;
    assert!(second.lives().await, "streams of the other engine do not notice");
    drop((first, second));
    assert_eq!(rig.stop().await, Ended::Drained);
}

async fn guards_are_kept_apart_and_over_a_restart(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let guards = |rig: &Rig| rig.tor.status().iter().map(|engine| engine.guard.unwrap()).collect::<Vec<_>>();
    let first = guards(&rig);
    assert_ne!(first[0], first[1]);
    for (isolation, exit) in bed.network.exits().iter().enumerate() {
        let (_, facts) = rig.seen_from(way(exit, isolation as u64)).await.unwrap();
        assert_eq!(facts.path[0], first[usize::from(facts.engine.0)]);
    }
    let pids: Vec<_> = rig.tor.status().iter().filter_map(|engine| engine.pid).collect();
    let rig = rig.start_again(&bed).await;
    assert!(pids.len() == 2 && !pids.iter().any(|pid| is_alive(*pid)), "a clean stop leaves no tor behind");
    assert_eq!(guards(&rig), first);
    rig.seen_from(way(bed.network.relay("us1"), 1)).await.unwrap();
    // With a known guard an engine talks to nobody else, not even for the directory.
    for (engine, guard) in first.iter().enumerate() {
        let connections = rig.control(engine).await.getinfo("orconn-status").await.unwrap();
        let strangers = connections.lines().filter(|line| !line.is_empty() && !line.contains(&guard.to_string()));
        assert_eq!(strangers.count(), 0, "engine {engine}: {connections}");
    }
    rig.stop().await;
}

async fn new_settings_are_taken_over_under_live_streams(backend: Backend) {
    let bed = bed(backend).await;
    let rig = Rig::start(&bed).await;
    let mut streams = rig.echo_on_each(bed.network.relay("us1")).await;
    let pids = |tor: &Tor| tor.status().iter().map(|engine| engine.pid).collect::<Vec<_>>();
    let before = pids(&rig.tor);

    let mut settings = rig.settings.clone();
    settings.extra.push("BandwidthRate 7 MBytes".into());
    settings.streams_per_circuit = 3;
    assert_eq!(rig.tor.reload(settings.clone()).await.unwrap(), [""; 0]);
    for engine in 0..2 {
        let control = rig.control(engine).await;
        let taken = async || control.config("BandwidthRate").await.unwrap() == (7 << 20).to_string();
        until("tor has the new line", taken, String::new).await;
    }
    settings.engines = 3;
    assert_eq!(rig.tor.reload(settings.clone()).await.unwrap(), ["tor.engines"]);
    settings.extra.push("ExitNodes {us}".into());
    let refused = rig.tor.reload(settings).await.unwrap_err();
    assert!(refused.to_string().contains("ExitNodes {us}"), "{refused}");

    for stream in &mut streams {
        assert!(stream.lives().await);
    }
    assert_eq!(pids(&rig.tor), before);
    rig.stop().await;
}

#[tokio::test]
async fn without_a_tor_there_is_one_clear_word() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        binary: PathBuf::from("/nonexistent/tor"),
        data_dir: dir.path().to_owned(),
        engines: 1,
        ..Settings::default()
    };
    let refused = preflight(&settings).await.unwrap_err();
    assert!(
        matches!(&refused, PreflightError::Binary(why) if why.to_string().contains("apt install tor")),
        "{refused}"
    );
    let life = Lifecycle::new();
    let tor = Tor::start(settings, life.tasks(), watch::Sender::new(CircuitDemand::default()).subscribe());
    let states = follow(&tor, "stopped").await;
    let Some(EngineState::Stopped { why: Some(why) }) = states.last() else { panic!("{states:?}") };
    assert_eq!(**why, refused.to_string());
    assert_eq!(life.stop(PATIENCE, std::future::pending()).await, Ended::Drained);
}
