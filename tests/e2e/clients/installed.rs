//! What `.ci/clients` has installed.

use std::path::{Path, PathBuf};

/// Where it is. A test whose client is not there fails.
pub fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients").join(what);
    assert!(path.exists(), "{} is not there: run .ci/clients", path.display());
    path
}

/// A script of ours, where Node finds its packages: beside them.
pub fn beside_packages(name: &str) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients").join(name);
    let to = installed("node_modules").with_file_name(name);
    std::fs::copy(from, &to).unwrap();
    to.to_str().unwrap().to_owned()
}
