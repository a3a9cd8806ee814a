//! The command line.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

pub const USAGE: &str = "\
simnet GATEWAY SIMTOR [--full] [--by N] [--part K/N] [--verify] [--list] [--size N] [--out FILE] [SCENARIO…]

  GATEWAY   the program, such as target/release/exitgate
  SIMTOR    the program that stands in for tor, such as target/release/simtor
  --by N    with all durations divided by N; 1 is real time
  --full    in real time, which takes hours; otherwise hour-long scenarios run with all durations divided
  --verify  only the scenarios that `make verify` runs
  --part K/N  of the scenarios the Kth, the K+Nth and so on: several processes share them, each with logs of its own
  --list    the names of the scenarios, and nothing else
  --size N  relays of the network in the place of the public network's 9,300
  --out F   where the table goes; target/ci/simnet/table.md otherwise";

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub gateway: PathBuf,
    pub simtor: PathBuf,
    pub full: bool,
    pub by: Option<f64>,
    pub verify: bool,
    pub part: Option<(usize, usize)>,
    pub list: bool,
    pub size: Option<usize>,
    pub out: Option<PathBuf>,
    pub names: Vec<String>,
}

impl Options {
    pub fn read(arguments: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let (mut options, mut plain) = (Self::default(), Vec::new());
        let mut arguments = arguments.into_iter();
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--full" => options.full = true,
                "--by" => {
                    let by = arguments.next().and_then(|by| by.parse().ok());
                    options.by = Some(by.filter(|by| (1.0..=1000.0).contains(by)).context("--by: a number from 1 on")?);
                }
                "--part" => {
                    let part = arguments.next().and_then(|part| {
                        let (which, of) = part.split_once('/')?;
                        Some((which.parse().ok()?, of.parse().ok()?))
                    });
                    let makes_sense = |(which, of): &(usize, usize)| (1..=*of).contains(which);
                    options.part = Some(part.filter(makes_sense).context("--part: such as 1/2")?);
                }
                "--verify" => options.verify = true,
                "--list" => options.list = true,
                "--size" => {
                    let size = arguments.next().and_then(|size| size.parse().ok());
                    options.size = Some(size.filter(|size| *size >= 300).context("--size: a number from 300 on")?);
                }
                "--out" => options.out = Some(arguments.next().context("--out: a file")?.into()),
                other if other.starts_with('-') => bail!("{other} is no option"),
                _ => plain.push(word),
            }
        }
        if options.list {
            return Ok(options);
        }
        let mut plain = plain.into_iter();
        options.gateway = plain.next().context("the gateway's program is missing")?.into();
        options.simtor = plain.next().context("simtor's program is missing")?.into();
        options.names = plain.collect();
        Ok(options)
    }

    /// Where logs are kept, and the table if nobody says where.
    pub fn logs(&self) -> anyhow::Result<PathBuf> {
        let mut folder = PathBuf::from("target/ci/simnet");
        if let Some((which, _)) = self.part {
            folder.push(which.to_string());
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Options> {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn programs_come_first_and_names_last() {
        let options = read("gate simtor --full idle-hour --size 500 choice").unwrap();
        assert_eq!((options.gateway, options.simtor), ("gate".into(), "simtor".into()));
        assert_eq!((options.full, options.size), (true, Some(500)));
        assert_eq!(options.names, ["idle-hour", "choice"]);
        assert!(read("--list").unwrap().list);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "gate",
            "gate simtor --fast",
            "gate simtor --size",
            "gate simtor --size 3",
            "gate simtor --by 0",
            "gate simtor --part 3/2",
            "gate simtor --out",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
