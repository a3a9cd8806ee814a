//! Runs the private Tor network alone, for a gateway that is started elsewhere, for example in a container.
//!
//!     cargo run -p exitgate-testnet --example network -- FOLDER SEEN_AS
//!
//! Writes to FOLDER what such a gateway needs: the countries, the certificate of the fake web, and an `exitgate.toml`. The paths in it are those
//! of a gateway that sees FOLDER as SEEN_AS. The file `page` holds the URL of a page that answers with the address of its client. It is
//! written last: when it is there, everything runs. SIGTERM ends the program.

#![expect(clippy::print_stderr, reason = "errors are this program's output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::Context as _;
use exitgate_testnet::Testbed;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut words = env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(seen_as)) = (words.next(), words.next()) else {
        anyhow::bail!("usage: network FOLDER SEEN_AS");
    };
    let mut stop = signal(SignalKind::terminate())?;
    let bed = Testbed::start().await?;
    write_files(&bed, &folder, &seen_as).with_context(|| format!("cannot write to {}", folder.display()))?;
    stop.recv().await;
    Ok(())
}

fn write_files(bed: &Testbed, folder: &Path, seen_as: &Path) -> anyhow::Result<()> {
    let mut lines = bed.gateway_lines();
    for read in [bed.network.geoip_file(), bed.sandbox.folder().join("geoip6"), bed.web.ca_pem().to_owned()] {
        let name = read.file_name().context("a file has a name")?;
        fs::copy(&read, folder.join(name))?;
        lines = lines.replace(&*read.to_string_lossy(), &seen_as.join(name).to_string_lossy());
    }
    fs::write(
        folder.join("exitgate.toml"),
        format!("tor.circuits_per_second = 200.0\nsources.onionoo.enabled = false\ncheck.per_second = 50.0\n{lines}\n"),
    )?;
    fs::write(folder.join("page.new"), bed.web.http("echo.test", "/ip"))?;
    fs::rename(folder.join("page.new"), folder.join("page"))?;
    Ok(())
}
