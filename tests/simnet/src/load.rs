//! Clients by the dozen, and what their answers come to.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Answer, get};
use crate::pace::Pace;
use crate::row::{Row, number, quantile};

/// How much longer than the gateway's own deadline for a dial a client waits: whoever is not answered by then was left hanging.
const GRACE: Duration = Duration::from_secs(15);

/// The shipped `gateway.dial_timeout`.
const DIAL: Duration = Duration::from_secs(30);

/// How long clients wait for a small page.
pub fn patience(pace: Pace) -> Duration {
    pace.wall(DIAL) + GRACE
}

/// One request to send.
#[derive(Clone, Debug)]
pub struct Request {
    pub username: String,
    pub url: String,
    /// When, from the begin on, on the wall.
    pub at: Duration,
}

/// Requests of these usernames for one page, evenly spread over a time on the wall; all at once if it is zero.
pub fn spread(usernames: impl IntoIterator<Item = String>, url: &str, over: Duration) -> Vec<Request> {
    let usernames: Vec<String> = usernames.into_iter().collect();
    let step = over.div_f64(usernames.len().max(1) as f64);
    let request =
        |(place, username): (usize, String)| Request { username, url: url.to_owned(), at: step * place as u32 };
    usernames.into_iter().enumerate().map(request).collect()
}

/// Sends them, each when its time has come, and waits for all; answers in the order of the requests.
pub async fn send(proxy: SocketAddr, requests: Vec<Request>, patience: Duration) -> Vec<Answer> {
    let (began, count) = (Instant::now(), requests.len());
    let mut tasks = JoinSet::new();
    for (place, request) in requests.into_iter().enumerate() {
        tasks.spawn(async move {
            sleep_until(began + request.at).await;
            (place, get(proxy, &request.username, &request.url, patience).await)
        });
    }
    let mut answers = vec![Answer::default(); count];
    while let Some(done) = tasks.join_next().await {
        if let Ok((place, answer)) = done {
            answers[place] = answer;
        }
    }
    answers
}

/// How many pages arrived.
pub fn served(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.served()).count()
}

/// Seconds of the model to the first byte, of every answer: those that failed count with the time after which they did.
pub fn firsts(answers: &[Answer], pace: Pace) -> Vec<f64> {
    answers.iter().map(|answer| pace.model(answer.first)).collect()
}

/// The most frequent reasons for failure: `12 × every such exit has failed`.
pub fn reasons(answers: &[Answer]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| !answer.served()) {
        let words: String = answer.error.chars().take(80).collect();
        *counts.entry(format!("{} {words}", answer.status)).or_default() += 1;
    }
    let mut sorted: Vec<(usize, String)> = counts.into_iter().map(|(reason, count)| (count, reason)).collect();
    sorted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let shown: Vec<String> = sorted.into_iter().take(3).map(|(count, reason)| format!("{count} × {reason}")).collect();
    if shown.is_empty() { "none".into() } else { shown.join("; ") }
}

/// How many answers say that an exit is to blame.
pub fn blaming(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.error.starts_with("the exit")).count()
}

/// How many answers each exit gave.
pub fn by_exit(answers: &[Answer]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.served()) {
        *counts.entry(answer.exit.clone()).or_default() += 1;
    }
    counts
}

/// The figures that every load has: how many were served, and how soon.
pub fn timing(row: &mut Row, answers: &[Answer], pace: Pace) {
    let firsts = firsts(answers, pace);
    for (name, part) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        row.figure(format!("first byte {name} s"), number(quantile(&firsts, part)));
    }
    row.figure("failures", reasons(answers));
}

/// The longest time between two pages that arrived, in seconds of the model; `begins` are when the requests were sent, from
/// the begin on. The begin and the end of the whole load count as pages.
pub fn longest_gap(requests: &[Duration], answers: &[Answer], pace: Pace) -> f64 {
    let mut arrivals: Vec<f64> = requests
        .iter()
        .zip(answers)
        .filter(|(_, answer)| answer.served())
        .map(|(at, answer)| pace.model(*at + answer.first))
        .collect();
    let end = requests.iter().max().map_or(0.0, |at| pace.model(*at));
    arrivals.extend([0.0, end]);
    arrivals.sort_by(f64::total_cmp);
    arrivals.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(served: bool, seconds: u64) -> Answer {
        let status = if served { 200 } else { 504 };
        let error = if served { String::new() } else { "late".into() };
        Answer { status, error, first: Duration::from_secs(seconds), ..Answer::default() }
    }

    #[test]
    fn requests_are_spread_evenly() {
        let at: Vec<_> =
            spread((0..4).map(|n| n.to_string()), "u", Duration::from_secs(8)).iter().map(|r| r.at.as_secs()).collect();
        assert_eq!(at, [0, 2, 4, 6]);
    }

    #[test]
    fn a_gap_is_what_lies_between_pages_that_arrived() {
        let at: Vec<Duration> = [0, 5, 10, 30].map(Duration::from_secs).to_vec();
        let answers = [answer(true, 1), answer(false, 20), answer(true, 5), answer(true, 0)];
        assert_eq!(longest_gap(&at, &answers, Pace(1.0)), 15.0);
        assert_eq!(
            longest_gap(&at, &[answer(false, 1), answer(false, 1), answer(false, 1), answer(false, 1)], Pace(2.0)),
            60.0
        );
    }

    #[test]
    fn reasons_are_counted() {
        let answers = [answer(true, 1), answer(false, 1), answer(false, 2)];
        assert_eq!(reasons(&answers), "2 × 504 late");
        assert_eq!((served(&answers), reasons(&answers[..1]).as_str()), (1, "none"));
        let blames = Answer { error: "the exit does not answer".into(), ..Answer::default() };
        assert_eq!((blaming(&answers), blaming(&[blames])), (0, 1));
    }
}
