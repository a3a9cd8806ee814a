//! `exitgate test-exits`: one pass of the tester over all exits, or some, watched by a person.
//!
//! It asks the running gateway and starts no engines of its own: a second set of them would be new guards and as many
//! circuits again, which is what guards defend themselves against, and what it found would be known to nobody. So what
//! comes out is in force at once, and the pace is the gateway's own (`check.per_second`).
//!
//! Results are written down as they come, in `test-exits.jsonl` under `data_dir`. A pass that was cut short goes on from
//! there when the same command is given again within the hour.
//!
//! Next: `test_exits/progress_file.rs` (what is written down), `test_exits/table.rs` (what is shown at the end).

mod progress_file;
mod table;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::progress_file::{About, ProgressFile};
use self::table::Counts;
use super::client::Api;
use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::lifecycle::{Lifecycle, Tasks};

/// Exits that one request names. The API reads 64 KiB of a body, and a fingerprint takes 43 bytes of it.
const A_REQUEST: usize = 1000;

/// How often the line of progress is drawn when nothing happens, so that its clock goes on.
const TICK: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Only exits of this country: two letters
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// Also ask this page through each exit that works; whatever it answers is held against nobody
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Print each result as a line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Begin anew, also where an earlier pass was cut short
    #[arg(long)]
    anew: bool,
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// What comes in while a pass runs.
enum News {
    Line(Value),
    Failed(anyhow::Error),
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(pass(config, args))
}

async fn pass(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let api = Api::here(config)?;
    let about = About { country: args.country.clone(), target: args.target.clone() };
    let mut progress = ProgressFile::open(&config.data_dir, &about, args.anew);
    let left: Vec<String> = exits(&api, &about).await?.into_iter().filter(|id| !progress.has(id)).collect();
    let mut view = View::new(args.json, progress.done(), left.len())?;
    let lifecycle = Lifecycle::new();
    let mut news = ask(&api, &about, &left, &lifecycle.tasks());
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut tick = tokio::time::interval(TICK);
    loop {
        let line = tokio::select! {
            news = news.recv() => match news {
                Some(News::Line(line)) => line,
                Some(News::Failed(why)) => {
                    view.leave();
                    return Err(why.context("the pass was cut short; the same command goes on where it ended"));
                }
                None => break,
            },
            _ = tick.tick() => {
                view.bar.tick();
                continue;
            }
            _ = &mut interrupted => {
                view.interrupted()?;
                return Ok(Exit::Signal(2));
            }
        };
        if line["id"].is_string() {
            progress.note(&line);
            view.show(line)?;
        }
    }
    progress.close();
    view.end()?;
    Ok(Exit::Ok)
}

/// The ids of all exits that may be tested.
async fn exits(api: &Api, about: &About) -> anyhow::Result<Vec<String>> {
    let country = about.country.as_deref().map(|country| format!("&country={}", escaped(country))).unwrap_or_default();
    let mut ids = Vec::new();
    loop {
        let after = ids.last().map(|id| format!("&after={id}")).unwrap_or_default();
        let path = format!("/exits?source=tor&limit={A_REQUEST}{country}{after}");
        let (status, page) = api.ask(Method::GET, &path, None).await?;
        if status != StatusCode::OK {
            bail!("{}", page["error"]["message"].as_str().unwrap_or("the gateway refused"));
        }
        let list = page["exits"].as_array().context("the answer lists no exits: is this exitgate?")?;
        ids.extend(list.iter().filter_map(|exit| exit["id"].as_str()).map(str::to_owned));
        if page["next"].is_null() || list.is_empty() {
            return Ok(ids);
        }
    }
}

/// What stands in a query as itself; the rest of what somebody may type for a country is for the API to refuse.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

/// Asks for the pass, in as few requests as it takes, side by side.
fn ask(api: &Api, about: &About, ids: &[String], tasks: &Tasks) -> mpsc::UnboundedReceiver<News> {
    let (tell, news) = mpsc::unbounded_channel();
    for ids in ids.chunks(A_REQUEST) {
        let mut body = json!({ "exits": ids });
        if let Some(target) = &about.target {
            body["target"] = json!(target);
        }
        let (api, tell) = (api.clone(), tell.clone());
        tasks.spawn("pass", async move {
            // Whoever no longer listens has been interrupted.
            let asked = api.lines("/checks", &body, |line| _ = tell.send(News::Line(line))).await;
            let _ = asked.map_err(|why| tell.send(News::Failed(why)));
        });
    }
    news
}

/// What a person sees.
struct View {
    json: bool,
    bar: ProgressBar,
    counts: Counts,
    lines: Vec<Value>,
    begun: Instant,
}

impl View {
    /// `done` are results of the same pass, from before it was cut short.
    fn new(json: bool, done: Vec<Value>, left: usize) -> anyhow::Result<Self> {
        for line in done.iter().filter(|_| json) {
            writeln!(std::io::stdout(), "{line}")?;
        }
        let bar = ProgressBar::with_draw_target(Some((done.len() + left) as u64), ProgressDrawTarget::stderr());
        let template = "{bar:30} {pos}/{len} · {msg} · {elapsed} gone, {eta} to go";
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
            self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"))?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn leave(&self) {
        self.bar.finish_and_clear();
    }

    fn interrupted(&self) -> anyhow::Result<()> {
        self.leave();
        let said = format!("{} tested ({}); the same command goes on from here", self.lines.len(), self.counts);
        Ok(writeln!(std::io::stderr(), "{said}")?)
    }

    fn end(self) -> anyhow::Result<()> {
        self.leave();
        if !self.json {
            write!(std::io::stdout(), "{}", table::of(&self.lines))?;
        }
        let took = self.begun.elapsed().as_secs_f64();
        Ok(writeln!(std::io::stderr(), "{} tested in {took:.1} s: {}", self.lines.len(), self.counts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_for_a_country_stays_in_its_place() {
        for (typed, sent) in [("us", "us"), ("??", "%3F%3F"), ("a&b", "a%26b"), ("é", "%C3%A9")] {
            assert_eq!(escaped(typed), sent);
        }
    }
}
