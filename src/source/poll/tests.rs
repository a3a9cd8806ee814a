use http::StatusCode;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Moment = Moment(1_788_500_000_000_000);

fn feed() -> Feed {
    Feed {
        name: "onionoo".into(),
        url: Uri::from_static("https://onionoo.test/details"),
        every: HOUR,
        stale_after: 3 * HOUR,
        limits: Limits::default(),
    }
}

fn ago(span: Duration) -> Moment {
    Moment(NOW.0 - span.as_micros() as u64)
}

/// A source whose last request was good, one hour ago.
fn good() -> Source {
    Source {
        name: "onionoo".to_owned(),
        etag: Some("\"1\"".to_owned()),
        attempt: Some(ago(HOUR)),
        good: Some(ago(HOUR)),
        next: Some(NOW),
        published: Some(ago(HOUR)),
        outcome: "fresh".to_owned(),
        records: 2000,
        ..Source::default()
    }
}

fn fresh(records: u32, published: Moment) -> Result<Reply<()>, FetchError> {
    let parsed = Parsed { value: (), records, skipped: 3, published: Some(published) };
    Ok(Reply::Fresh(parsed, Validators { etag: Some("\"2\"".to_owned()), last_modified: None }, None))
}

fn evaluated(before: &Source, answer: Result<Reply<()>, FetchError>) -> Update<()> {
    evaluate(&feed(), before, answer, NOW, 0.0)
}

#[test]
fn a_good_answer_replaces_what_was_there() {
    let Update { status, value } =
        evaluated(&Source { failures: 4, ..good() }, fresh(2100, ago(Duration::from_secs(60))));
    assert!(value.is_some());
    assert_eq!((status.outcome.as_str(), status.why.as_str(), status.failures), ("fresh", "", 0));
    assert_eq!((status.records, status.skipped, status.etag.as_deref()), (2100, 3, Some("\"2\"")));
    assert_eq!((status.good, status.attempt, status.next), (Some(NOW), Some(NOW), Some(NOW.after(HOUR))));
}

#[test]
fn a_bad_answer_changes_only_the_status() {
    let late = || Err(FetchError::Late("connecting"));
    let status = |status, retry_after| Err(FetchError::Status { status, retry_after });
    let first = FIRST_PAUSE.mul_f64(0.75);
    for (answer, outcome, hint, pause) in [
        (late(), "timeout", "connecting", first),
        (status(StatusCode::INTERNAL_SERVER_ERROR, None), "status", "500", first),
        (status(StatusCode::SERVICE_UNAVAILABLE, Some(HOUR * 5)), "status", "503", HOUR * 5),
        (status(StatusCode::BAD_REQUEST, None), "status", "400", first),
        (Err(Garbage("the document is incomplete").into()), "garbage", "incomplete", first),
        (Err(FetchError::TooLong(64)), "too_long", "64 bytes", first),
        (fresh(0, NOW), "garbage", "no exit", first),
        (fresh(999, NOW), "garbage", "less than half", first),
        (fresh(2000, ago(2 * HOUR)), "garbage", "older", first),
    ] {
        let Update { status, value } = evaluated(&good(), answer);
        assert!(value.is_none(), "{hint}");
        assert_eq!(status.outcome, outcome);
        assert!(status.why.contains(hint), "{:?} does not say {hint:?}", status.why);
        let kept = Source {
            attempt: status.attempt,
            next: status.next,
            outcome: "fresh".to_owned(),
            why: String::new(),
            failures: 0,
            ..status.clone()
        };
        assert_eq!(
            Source { attempt: good().attempt, next: good().next, ..kept },
            good(),
            "{hint}: what was good stands"
        );
        assert_eq!((status.failures, status.next), (1, Some(NOW.after(pause))), "{hint}");
    }
}

#[test]
fn unchanged_is_good_until_the_data_is_old() {
    let Update { status, value } = evaluated(&good(), Ok(Reply::Unchanged(Some(2 * HOUR))));
    assert!(value.is_none());
    assert_eq!((status.outcome.as_str(), status.good), ("unchanged", Some(NOW)));
    assert_eq!(status.next, Some(NOW.after(2 * HOUR)), "a longer max-age is honoured");
    assert_eq!(usable_validators(&status).etag.as_deref(), Some("\"1\""));

    let old = Source { published: Some(ago(4 * HOUR)), ..good() };
    let status = evaluated(&old, Ok(Reply::Unchanged(None))).status;
    assert_eq!((status.outcome.as_str(), status.failures), ("stale", 0));
    assert_eq!(usable_validators(&status), Validators::default(), "304 for ever: the next question is not conditional");
    let update = evaluated(&status, fresh(2000, ago(4 * HOUR)));
    assert!(update.value.is_some() && update.status.outcome == "stale", "old data is used, and reported as stale");
}

#[test]
fn a_wrong_clock_is_reported_and_does_no_harm() {
    let update = evaluated(&good(), fresh(2000, NOW.after(5 * HOUR)));
    assert!(update.value.is_some());
    assert!(update.status.why.contains("from the future"), "{}", update.status.why);
}

#[test]
fn a_halved_list_is_accepted_when_it_comes_again() {
    let mut status = good();
    for _ in 1..HALVED_REQUESTS {
        let update = evaluated(&status, fresh(900, NOW));
        assert!(update.value.is_none());
        status = update.status;
    }
    assert!(evaluated(&status, fresh(900, NOW)).value.is_some());
    assert!(evaluated(&Source { records: 8, ..good() }, fresh(2, NOW)).value.is_some(), "a short list may halve");
    let late = (0..9).fold(good(), |status, _| evaluated(&status, Err(FetchError::Late("connecting"))).status);
    assert!(evaluated(&late, fresh(900, NOW)).value.is_none(), "nine timeouts do not confirm a halved list");
}

#[test]
fn a_date_from_the_future_makes_nothing_old() {
    let slip = evaluated(&good(), fresh(2000, NOW.after(900 * HOUR))).status;
    assert!(evaluated(&slip, fresh(2000, NOW)).value.is_some());
}

#[test]
fn pauses_grow_to_the_period_and_spread() {
    let late = FetchError::Late("x");
    let seconds = |failures, chance| pause(HOUR, Err(&late), failures, chance).as_secs_f64();
    assert_eq!([1, 2, 3].map(|failures| seconds(failures, 0.5)), [30.0, 60.0, 120.0]);
    assert_eq!(seconds(1000, 0.5), 3600.0);
    assert_eq!((seconds(1, 0.0), seconds(1, 1.0)), (22.5, 37.5));
    assert_eq!(pause(HOUR, Ok(Some(Duration::ZERO)), 0, 1.0), HOUR + HOUR / 20, "never more often than hourly");
    let soon = FetchError::Status { status: StatusCode::SERVICE_UNAVAILABLE, retry_after: Some(Duration::ZERO) };
    assert_eq!(
        pause(HOUR, Err(&soon), 3, 0.5).as_secs(),
        120,
        "after three failures the pause grows whatever the server demands"
    );
}

#[test]
fn a_request_is_made_when_planned_unless_the_clock_was_wrong() {
    let day = 24 * HOUR;
    for (next, want) in [
        (None, Duration::ZERO),
        (Some(ago(HOUR)), Duration::ZERO),
        (Some(NOW), Duration::ZERO),
        (Some(NOW.after(HOUR)), HOUR),
        (Some(NOW.after(day + HOUR)), day + HOUR),
        (Some(NOW.after(1000 * day)), Duration::ZERO),
    ] {
        assert_eq!(due(&Source { next, ..good() }, HOUR, NOW), want, "{next:?}");
    }
    let longest = [
        pause(HOUR, Ok(Some(LONGEST_WAIT)), 0, 1.0),
        pause(30 * day, Ok(None), 0, 1.0),
        pause(30 * day, Err(&FetchError::Late("x")), 99, 1.0),
    ];
    for (pause, every) in longest.into_iter().zip([HOUR, 30 * day, 30 * day]) {
        let planned = Source { next: Some(NOW.after(pause)), ..good() };
        assert_eq!(due(&planned, every, NOW), pause, "our own longest pause does not count as a wrong clock");
    }
}
