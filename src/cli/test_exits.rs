//! `exitgate test-exits`: tests all exits, or those of one country, and shows each result as soon as it is known.
//!
//! The running gateway makes the tests. If this command started engines of its own, they would use new guards and build
//! every circuit a second time. Tor's guards are meant to prevent this, and the gateway would not learn the results. So
//! the gateway uses each result immediately, and it tests at its own rate (`check.per_second`).
//!
//! The results are also written to `test-exits.jsonl` under `data_dir`. If a run is interrupted and the same command is
//! given again within an hour, the command continues where it stopped.
//!
//! Next: `test_exits/progress_file.rs` (the file with the results), `test_exits/table.rs` (the table at the end).

mod progress_file;
mod table;

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::progress_file::{ProgressFile, Scope};
use self::table::Counts;
use super::client::{Api, ClientError};
use super::remote::with_query;
use super::{ConfigFile, ExitStatus};
use crate::config::Config;
use crate::lifecycle::{Lifecycle, Tasks};

/// The number of exit ids in one request to the API. The API accepts a body of 64 KiB, and the id of a Tor exit takes
/// 43 bytes.
const IDS_PER_REQUEST: usize = 1000;

/// The time after which the progress bar is drawn again if there was no result, so that its clock keeps running. Not
/// tuned.
const TICK: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Only exits of this country: two letters
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// Also fetch this page through each good exit; the result does not change the exit's verdict
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Print each result as a line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Start from the beginning, even if an earlier run was interrupted
    #[arg(long)]
    anew: bool,
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// What the task that sends a request reports while the request runs: a line of the answer, or an error.
enum Event {
    Line(Value),
    Failed(ClientError),
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Api::from_env(config) {
            Ok(api) => test(&api, config, args).await,
            Err(error) => failed(&error, None),
        }
    })
}

async fn test(api: &Api, config: &Config, args: &Args) -> anyhow::Result<ExitStatus> {
    let scope = Scope { country: args.country.clone(), target: args.target.clone() };
    let ids = match testable(api, &scope).await {
        Ok(ids) => ids,
        Err(error) => return failed(&error, None),
    };
    let mut progress = ProgressFile::open(&config.data_dir, &scope, args.anew);
    let left: Vec<String> = ids.into_iter().filter(|id| !progress.has(id)).collect();
    let mut view = ProgressView::new(args.json, progress.done(), left.len())?;
    let lifecycle = Lifecycle::new();
    let mut events = start_requests(api, &scope, &left, &lifecycle.tasks());
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut tick = tokio::time::interval(TICK);
    loop {
        let line = tokio::select! {
            event = events.recv() => match event {
                Some(Event::Line(line)) => line,
                Some(Event::Failed(error)) => {
                    view.clear();
                    return failed(&error, Some(view.lines.len()));
                }
                None => break,
            },
            _ = tick.tick() => {
                view.bar.tick();
                continue;
            }
            _ = &mut interrupted => {
                view.interrupted()?;
                return Ok(ExitStatus::Signal(2));
            }
        };
        // The first line of an answer has only the number of exits, and no id.
        if line["id"].is_string() {
            progress.note(&line);
            view.show(line)?;
        }
    }
    progress.close();
    view.end()?;
    Ok(ExitStatus::Ok)
}

/// Prints an error, and returns the exit code. `tested` is the number of results that are stored, if the run has begun.
/// If the API refused the request as wrong, nothing is stored, and the same request would be refused again.
fn failed(error: &ClientError, tested: Option<usize>) -> anyhow::Result<ExitStatus> {
    let status = error.exit_status();
    let mut stderr = io::stderr();
    writeln!(stderr, "exitgate: {error}")?;
    if let (Some(tested), ExitStatus::Unavailable) = (tested, status) {
        writeln!(stderr, "  {tested} tested; the same command continues from here")?;
    }
    Ok(status)
}

/// Returns the ids of all exits that can be tested.
async fn testable(api: &Api, scope: &Scope) -> Result<Vec<String>, ClientError> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let path = with_query(
            "/exits",
            &[
                ("source", Some("tor".to_owned())),
                ("limit", Some(IDS_PER_REQUEST.to_string())),
                ("country", scope.country.clone()),
                ("after", ids.last().cloned()),
            ],
        );
        let page = api.send(Method::GET, &path, None).await?;
        let list = page["exits"].as_array().map(Vec::as_slice).unwrap_or_default();
        ids.extend(list.iter().filter_map(|exit| exit["id"].as_str()).map(str::to_owned));
        if page["next"].is_null() || list.is_empty() {
            return Ok(ids);
        }
    }
}

/// Sends the ids of all exits to the API for testing, in as few requests as possible. All requests run at the same
/// time.
fn start_requests(api: &Api, scope: &Scope, ids: &[String], tasks: &Tasks) -> mpsc::UnboundedReceiver<Event> {
    let (send, events) = mpsc::unbounded_channel();
    for ids in ids.chunks(IDS_PER_REQUEST) {
        let mut body = json!({ "exits": ids });
        if let Some(target) = &scope.target {
            body["target"] = json!(target);
        }
        let (api, send) = (api.clone(), send.clone());
        tasks.spawn("test-exits", async move {
            // Sending to the channel fails only after an interruption, when nobody receives any more.
            let result = api.send_for_lines("/checks", &body, |line| _ = send.send(Event::Line(line))).await;
            let _ = result.map_err(|error| send.send(Event::Failed(error)));
        });
    }
    events
}

/// Shows the progress bar on stderr and the results on stdout.
struct ProgressView {
    json: bool,
    bar: ProgressBar,
    counts: Counts,
    lines: Vec<Value>,
    begun: Instant,
}

impl ProgressView {
    /// `done` are the results of the same run before it was interrupted. `left` is the number of exits that are still
    /// to be tested.
    fn new(json: bool, done: Vec<Value>, left: usize) -> anyhow::Result<Self> {
        for line in done.iter().filter(|_| json) {
            writeln!(io::stdout(), "{line}")?;
        }
        let bar = ProgressBar::with_draw_target(Some((done.len() + left) as u64), ProgressDrawTarget::stderr());
        let template = "{bar:30} {pos}/{len} · {msg} · {elapsed} elapsed, {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let counts = done.iter().fold(Counts::default(), |counts, line| counts.and(line));
        bar.set_position(done.len() as u64);
        bar.reset_eta();
        bar.set_message(counts.to_string());
        Ok(Self { json, bar, counts, lines: done, begun: Instant::now() })
    }

    fn show(&mut self, line: Value) -> anyhow::Result<()> {
        self.counts = self.counts.and(&line);
        self.bar.set_message(self.counts.to_string());
        self.bar.inc(1);
        if self.json {
            self.bar.suspend(|| writeln!(io::stdout(), "{line}"))?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn interrupted(&self) -> anyhow::Result<()> {
        self.clear();
        let tested = self.lines.len();
        Ok(writeln!(io::stderr(), "{tested} tested ({}); the same command continues from here", self.counts)?)
    }

    fn end(self) -> anyhow::Result<()> {
        self.clear();
        if !self.json {
            write!(io::stdout(), "{}", table::render(&self.lines))?;
        }
        let took = self.begun.elapsed().as_secs_f64();
        Ok(writeln!(io::stderr(), "{} tested in {took:.1} s: {}", self.lines.len(), self.counts)?)
    }
}
