//! Secrets that exitgate generates.
//!
//! If the configuration opens a port beyond loopback without a key or a token, exitgate neither refuses to start nor
//! runs without protection: it generates a secret. The secret is stored in `data_dir`, readable only by the user that
//! runs exitgate, and the log contains the path of the file. An existing file is used again, so clients keep working
//! after a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::RngExt;

use crate::net::Secret;

/// The name of the file in `data_dir` that contains the client key.
pub const KEY_FILE: &str = "gateway.key";
/// The name of the file in `data_dir` that contains the API token.
pub const TOKEN_FILE: &str = "api.token";
/// The name of the file in `data_dir` that contains the token for reading only metrics and lists. Prometheus needs no
/// more.
pub const READ_TOKEN_FILE: &str = "api.read_token";

/// The name of the file in `data_dir` with which the secrets of the API's keys are recognized. It is needed together with
/// the database.
pub const API_KEYS_FILE: &str = "api_keys.secret";

/// The characters of a generated secret: letters and digits, because they need no escaping in a URL, a shell or a
/// header.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// The number of characters in a generated secret. 32 characters with 5 bits each are 160 bits, which nobody can guess.
const LENGTH: usize = 32;

/// The error for a secret that could not be read or stored.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} cannot be {doing}: {error}; set gateway.keys and api.token yourself, or give exitgate the right to write there"
)]
pub struct SecretError {
    path: PathBuf,
    doing: &'static str,
    #[source]
    error: io::Error,
}

/// Creates `data_dir` if it does not exist. Only the user that runs this process can read it.
pub fn make_data_dir(dir: &Path) -> Result<(), SecretError> {
    let fault = |error| SecretError { path: dir.to_owned(), doing: "created", error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fault)
}

/// Reads the secret in the file `dir/name`. If there is no file, generates a secret and stores it. The returned `bool`
/// is true if the secret was generated now.
pub fn load_or_make(dir: &Path, name: &str) -> Result<(Secret, bool), SecretError> {
    let path = dir.join(name);
    let fault = |doing| move |error| SecretError { path: path.clone(), doing, error };
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(fault("protected"))?;
            Ok((Secret::new(text.trim()), false))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("read")(error)),
        _ => {
            let text = random();
            write_private(&path, &text).map_err(fault("written"))?;
            Ok((Secret::new(text), true))
        }
    }
}

fn random() -> String {
    let mut rng = rand::rng();
    (0..LENGTH).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// Writes a temporary file and renames it. So after a crash the file contains the whole secret or does not exist.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_readable_by_its_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        make_data_dir(&data).unwrap();
        let (first, new) = load_or_make(&data, KEY_FILE).unwrap();
        let (again, old) = load_or_make(&data, KEY_FILE).unwrap();
        assert!(new && !old && first == again && first.expose().len() == LENGTH);
        assert_ne!(first, load_or_make(&data, TOKEN_FILE).unwrap().0);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(data.clone()), mode(data.join(KEY_FILE))), (0o700, 0o600));
    }

    #[test]
    fn an_empty_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), " \n").unwrap();
        let (secret, new) = load_or_make(dir.path(), KEY_FILE).unwrap();
        assert!(new && !secret.expose().is_empty());
    }
}
