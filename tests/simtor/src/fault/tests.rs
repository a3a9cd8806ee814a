use std::time::Duration;

use super::*;
use crate::model::Model;

fn ordered(model: &Model, json: &str) -> Faults {
    let (mut faults, entered) = (Faults::default(), HashSet::from([3]));
    faults.begin(serde_json::from_str(json).unwrap(), &Network { model, entered: &entered });
    faults
}

#[test]
fn an_order_is_a_line_of_json() {
    let order: Order = serde_json::from_str(r#"{"fault":"uplink_slow","bytes_per_second":1000,"for":1.5}"#).unwrap();
    assert_eq!(order.fault, Fault::UplinkSlow { bytes_per_second: 1000, delay_ms: 0 });
    assert_eq!(order.lasts, Some(1.5));
    for wrong in [r#"{"fault":"nonsense"}"#, r#"{"fault":"clock_off"}"#] {
        assert!(serde_json::from_str::<Order>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn relays_are_named_in_several_ways() {
    let model = Model::new(7, 200);
    let count = |who: &str, share: f64| {
        let network = Network { model: &model, entered: &HashSet::from([3]) };
        network.relays(who, share, 1).len()
    };
    let relay = &model.relays()[5];
    assert_eq!((count("all", 1.0), count("entered", 1.0), count(&relay.hex(), 1.0)), (200, 1, 1));
    assert_eq!(count(&format!("entered,${}", relay.hex()), 1.0), 2);
    let exits = count("exits", 1.0);
    assert_eq!(exits, model.relays().iter().filter(|relay| relay.is_exit()).count());
    let part = count("exits", 0.4) as f64 / exits as f64;
    assert!((0.2..0.6).contains(&part), "{part}");
    assert_eq!(count("nobody", 1.0), 0);
}

#[test]
fn what_happens_in_a_moment_is_not_in_force_after_it() {
    let faults = ordered(&Model::new(7, 20), r#"{"fault":"engine_crash"}"#);
    assert!(faults.running().is_empty());
}

#[test]
fn faults_act_where_they_are_asked_about() {
    let model = Model::new(7, 200);
    let down = ordered(&model, r#"{"fault":"relay_down","who":"entered"}"#);
    assert_eq!((down.relay(3), down.relay(4)), (Manner::Down, Manner::Works));
    let hop = ordered(&model, r#"{"fault":"hop_fails","hop":2,"share":0.5}"#);
    assert_eq!(hop.hop(2, 0.4), Manner::Refuses("CHANNEL_CLOSED".into()));
    assert_eq!((hop.hop(2, 0.6), hop.hop(3, 0.4)), (Manner::Works, Manner::Works));
    let ends = ordered(&model, r#"{"fault":"stream_ends","who":"all","reason":250}"#);
    assert_eq!(ends.exit(9, 0.0).ends, Some(250));
    let drops = ordered(&model, r#"{"fault":"target_drops","to":"dead.test:80"}"#);
    assert!(drops.target("dead.test", None, 80) && !drops.target("dead.test", None, 81));
    let conduct = ordered(&model, r#"{"fault":"tor_version","version":"0.4.9.14"}"#).conduct("0.4.9.11");
    assert_eq!(conduct.version, "0.4.9.14");
}

#[test]
fn every_fault_is_listed_with_its_fields() {
    let list = list();
    for wanted in [
        "    Nothing passes",
        "\nuplink_cut\n",
        "\nrelay_down\n        who: String\n        share: f64\n",
        "\ntor_version\n",
    ] {
        assert!(format!("\n{list}").contains(wanted), "{wanted:?} is not in {list}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_by_itself_or_when_told() {
    let model = Model::new(7, 50);
    let mut faults = ordered(&model, r#"{"fault":"uplink_cut","for":10}"#);
    assert_eq!(faults.uplink(), Uplink::Silent);
    assert!(!faults.expire(Instant::now() + Duration::from_secs(9)));
    assert!(faults.expire(Instant::now() + Duration::from_secs(11)));
    assert_eq!(faults.uplink(), Uplink::Works);
    let mut faults = ordered(&model, r#"{"fault":"uplink_unreachable"}"#);
    let id = faults.running()[0].id;
    assert_eq!((faults.end(Some(id + 1)), faults.end(Some(id)), faults.end(None)), (0, 1, 0));
}
