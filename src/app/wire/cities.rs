//! The city database of `geo.mmdb`: reads it at the start, and again after each change of the file or of the setting.
//!
//! Programs that update such databases replace the file once or twice a week. A file that cannot be used (for example
//! half a download) is logged, and the database that was read before stays in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use crate::exit::identity::{Cities, Identities};
use crate::lifecycle::Tasks;

/// The time between two looks at the file's time of change. Not tuned: a look is one system call.
const LOOK: Duration = Duration::from_secs(5);

/// The city database that is in use, and where it comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct CityFile {
    identities: Identities,
    /// The present value of `geo.mmdb`.
    path: Arc<ArcSwapOption<PathBuf>>,
}

/// What tells an edition of a file from the next: path, length and time of change.
type Edition = (PathBuf, u64, SystemTime);

impl CityFile {
    /// Uses another file, or none. The worker reads it within [`LOOK`].
    pub(crate) fn set_path(&self, path: Option<PathBuf>) {
        self.path.store(path.map(Arc::new));
    }

    pub(super) fn identities(&self) -> Identities {
        self.identities.clone()
    }

    /// Reads the file, and starts the worker that reads it again after each change.
    pub(super) async fn start(tasks: &Tasks, path: Option<PathBuf>) -> Self {
        let (started, mut seen) = (Self::default(), None);
        started.set_path(path);
        started.refresh(&mut seen).await;
        let (worker, file) = (tasks.clone(), started.clone());
        tasks.supervise("cities", move || {
            let (tasks, file, mut seen) = (worker.clone(), file.clone(), seen.clone());
            async move {
                let mut tick = tokio::time::interval(LOOK);
                while !tasks.is_stopping() {
                    tokio::select! {
                        () = tasks.stopping() => {}
                        _ = tick.tick() => file.refresh(&mut seen).await,
                    }
                }
            }
        });
        started
    }

    /// Reads the file if it is another edition than `seen`, the edition of the last attempt.
    async fn refresh(&self, seen: &mut Option<Edition>) {
        let Some(path) = self.path.load_full() else {
            if seen.take().is_some() {
                self.identities.set_cities(None);
                tracing::info!("no city database is used any more: identities come from the countries of exits");
            }
            return;
        };
        let found = tokio::fs::metadata(&*path).await.and_then(|meta| Ok((meta.len(), meta.modified()?)));
        let Ok((length, changed)) = found else { return }; // a file that is being replaced may be missing for a moment
        let edition = Some((path.to_path_buf(), length, changed));
        if *seen == edition {
            return;
        }
        *seen = edition;
        let file = path.clone();
        match tokio::task::spawn_blocking(move || read(&file)).await {
            Ok(Ok(cities)) => {
                let (kind, built) = cities.describe();
                tracing::info!(file = %path.display(), kind, built, "the city database was read");
                self.identities.set_cities(Some(cities));
            }
            Ok(Err(why)) => tracing::warn!(
                file = %path.display(),
                "geo.mmdb {why}; the database that was read before stays in use: replace the file"
            ),
            Err(error) => tracing::error!(%error, "the city database could not be read"),
        }
    }
}

fn read(path: &Path) -> Result<Cities, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    Cities::parse(content).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use exitgate_testnet::mmdb::{Mmdb, Place};

    use super::*;
    use crate::exit::catalog::Catalog;
    use crate::exit::facts::Listing;
    use crate::exit::{ExitId, Moment};

    fn place(city: &str) -> Place<'_> {
        let coordinates = Some((52.0, 10.0));
        Place { country: "DE", city: Some(city), region: None, time_zone: Some("Europe/Berlin"), coordinates }
    }

    fn city(file: &CityFile) -> Option<String> {
        let mut edit = Catalog::default().edit();
        edit.list(Listing::new(ExitId::Direct));
        let (ip, unknown) = ("192.0.2.1".parse().unwrap(), crate::exit::country::Country::UNKNOWN);
        edit.learn(&ExitId::Direct, |known| known.saw(ip, unknown, Moment(1)));
        let catalog = edit.finish();
        file.identities.of(catalog.get(&ExitId::Direct).unwrap())?.city.map(String::from)
    }

    #[tokio::test]
    async fn a_new_edition_is_read_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cities.mmdb");
        let write = |content: &[u8]| std::fs::write(&path, content).unwrap();
        let (file, mut seen) = (CityFile::default(), None);
        file.refresh(&mut seen).await;
        assert_eq!(city(&file), None);
        file.set_path(Some(path.clone()));
        file.refresh(&mut seen).await;
        assert_eq!(city(&file), None, "the file does not exist yet");
        write(&Mmdb::cities(&[("192.0.2.0/24", place("Bonn"))]));
        file.refresh(&mut seen).await;
        assert_eq!(city(&file).as_deref(), Some("Bonn"));
        write(b"half");
        file.refresh(&mut seen).await;
        assert_eq!(city(&file).as_deref(), Some("Bonn"));
        write(&Mmdb::cities(&[("192.0.2.0/24", place("Hamburg"))]));
        file.refresh(&mut seen).await;
        assert_eq!(city(&file).as_deref(), Some("Hamburg"));
        file.set_path(None);
        file.refresh(&mut seen).await;
        assert_eq!(city(&file), None);
    }
}
