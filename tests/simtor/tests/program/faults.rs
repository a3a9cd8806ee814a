//! Faults that an engine has, rather than the network around it.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::rig::{Engine, SIMTOR, ends, folder, until, world};

const LINES: &str = "SocksPort 0\n__DisablePredictedCircuits 1\n";

#[test]
fn a_control_port_is_made_slow_and_cut() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &[]);
    let mut engine = Engine::ready(folder.path(), &world, LINES);
    let slow = world.order_text(r#"{"fault":"control_slow","delay_ms":5000}"#).unwrap();
    until("the order arrives", || {
        let asked = Instant::now();
        engine.ask("GETINFO version");
        (asked.elapsed() >= Duration::from_millis(100)).then_some(()) // 5 s by the speed of 50
    });
    world.clear(slow).unwrap();
    engine.ask("TAKEOWNERSHIP");
    world.order_text(r#"{"fault":"control_cut"}"#).unwrap();
    let mut rest = Vec::new();
    engine.stream.read_to_end(&mut rest).unwrap();
    until("an engine without its owner ends", || engine.process.0.try_wait().unwrap());
}

#[test]
fn an_engine_crashes_by_order() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &[]);
    let mut engine = Engine::ready(folder.path(), &world, LINES);
    world.order_text(r#"{"fault":"engine_crash","engine":0}"#).unwrap();
    let status = until("its end", || engine.process.0.try_wait().unwrap());
    assert!(!status.success());
    assert_eq!(world.orders().unwrap().as_array().unwrap().len(), 0, "it is over");
    until("the world notices", || (world.stats().unwrap().engines == 0).then_some(()));
}

#[test]
fn a_wrong_clock_makes_the_directory_useless() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &[]);
    let mut engine = Engine::ready(folder.path(), &world, LINES);
    let [guard, exit] = ends(&world);
    let enough = |engine: &mut Engine| engine.ask("GETINFO status/enough-dir-info").contains("=1");
    let order = world.order_text(r#"{"fault":"clock_off","seconds":-259200}"#).unwrap();
    until("the directory is not of this time", || (!enough(&mut engine)).then_some(()));
    assert!(engine.ask(&format!("EXTENDCIRCUIT 0 ${guard},${exit}")).starts_with("551 "));
    world.clear(order).unwrap();
    until("it is again", || enough(&mut engine).then_some(()));
}

#[test]
fn relays_without_a_microdescriptor_are_not_used_and_too_many_are_too_many() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &["size=300"]);
    let order = world.order_text(r#"{"fault":"microdescs_missing","share":0.1}"#).unwrap();
    let mut engine = Engine::ready(folder.path(), &world, LINES);
    let relays = world.relays().unwrap();
    let names = relays.as_array().unwrap().iter().map(|relay| relay["fingerprint"].as_str().unwrap());
    let answers: Vec<_> = names.map(|name| engine.ask(&format!("EXTENDCIRCUIT 0 ${name},${name}"))).collect();
    let lacking = answers.iter().filter(|answer| answer.starts_with("552 No descriptor")).count();
    assert!((10..60).contains(&lacking), "{lacking} of 300");
    drop(engine);
    world.clear(order).unwrap();
    world.order_text(r#"{"fault":"microdescs_missing","share":0.5}"#).unwrap();
    let other = super::rig::folder();
    let mut engine = Engine::start(SIMTOR, other.path(), Some(world.socket()), LINES);
    engine.ask("AUTHENTICATE");
    until("half of the directory", || {
        engine.ask("GETINFO status/bootstrap-phase").contains("PROGRESS=50").then_some(())
    });
    assert!(engine.ask("GETINFO status/enough-dir-info").contains("=0"));
}

#[test]
fn other_versions_are_recommended_by_order() {
    let folder = folder();
    let (_process, world) = world(folder.path(), &[]);
    world.order_text(r#"{"fault":"versions_recommended","versions":"0.4.9.13,0.4.9.14"}"#).unwrap();
    let mut engine = Engine::ready(folder.path(), &world, LINES);
    assert!(engine.ask("GETINFO status/version/current").contains("=obsolete"));
    assert!(engine.ask("GETINFO status/version/recommended").contains("=0.4.9.13,0.4.9.14"));
}
