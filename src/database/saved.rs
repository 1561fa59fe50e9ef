//! A value in a file that survives a crash: written whole or not at all, and known by its checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The first word of the first line, and the version of this format.
const MAGIC: &str = "tidegate-saved-1";

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// the file system says no
    #[error("{}: {error}", path.display())]
    File {
        /// which file
        path: PathBuf,
        /// what it says
        error: io::Error,
    },
    /// the file is not one of ours, or not all of it is there
    #[error("{}: {what}; delete it to start without", path.display())]
    Foreign {
        /// which file
        path: PathBuf,
        /// what is wrong with it
        what: String,
    },
}

/// Writes a value, readable for this user alone; a crash leaves the file that was there before.
pub fn save(path: &Path, value: &impl Serialize) -> Result<(), SavedError> {
    let failed = |error| SavedError::File {
        path: path.to_owned(),
        error,
    };
    let body = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    // two processes that share a folder must not write into one temporary file
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    write_draft(&draft, &body)
        .and_then(|()| std::fs::rename(&draft, path))
        .and_then(|()| sync_folder(path))
        .map_err(|error| {
            // the draft of a full disk would keep it full
            let _ = std::fs::remove_file(&draft);
            failed(error)
        })
}

fn write_draft(draft: &Path, body: &[u8]) -> io::Result<()> {
    // left behind by a crash, perhaps with other permissions
    let _ = std::fs::remove_file(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    writeln!(file, "{MAGIC} {}", hex(&Sha256::digest(body)))?;
    file.write_all(body)?;
    file.sync_all()
}

/// The new name is on the disk too.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads what [`save`] wrote; absent: there is no such file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SavedError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(SavedError::File {
                path: path.to_owned(),
                error,
            });
        }
    };
    let foreign = |what: &str| SavedError::Foreign {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (header, body) = bytes.split_at(end.unwrap_or(0));
    let body = body.strip_prefix(b"\n").unwrap_or_default();
    let (magic, sum) = std::str::from_utf8(header)
        .ok()
        .and_then(|header| header.split_once(' '))
        .ok_or_else(|| foreign("not a file that tidegate saved"))?;
    if magic != MAGIC {
        return Err(foreign(
            "not a file that this version of tidegate saved (its first word is not `tidegate-saved-1`)",
        ));
    }
    if sum != hex(&Sha256::digest(body)) {
        return Err(foreign("its checksum does not fit: it is torn or edited"));
    }
    serde_json::from_slice(body)
        .map(Some)
        .map_err(|error| foreign(&format!("saved by another version: {error}")))
}

/// Bytes in hexadecimal, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing into a string does not fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("tidegate-saved-{:x}", fastrand::u64(..)));
            std::fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_only_this_user_reads_it() {
        let folder = Folder::new();
        let path = folder.0.join("rows");
        assert!(matches!(load::<Vec<String>>(&path), Ok(None)));
        for value in [vec!["a\n\"b".to_owned()], Vec::new()] {
            save(&path, &value).unwrap();
            assert_eq!(load::<Vec<String>>(&path).unwrap(), Some(value));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_or_foreign_file_is_named_and_never_a_panic() {
        let folder = Folder::new();
        let path = folder.0.join("rows");
        save(&path, &vec!["x".repeat(100)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load::<Vec<String>>(&path).unwrap_err().to_string();
            assert!(error.contains("rows: "), "{length}: {error}");
        }
        for text in [
            &b"{}"[..],
            b"\xff\xfe\n",
            b"tidegate-saved-9 x\n[]",
            b"\n\n",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(load::<Vec<String>>(&path).is_err());
        }
        save(&path, &7).unwrap();
        let error = load::<Vec<String>>(&path).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_its_name() {
        let error = save(Path::new("missing-folder/rows"), &1).unwrap_err();
        assert!(error.to_string().starts_with("missing-folder/rows: "));
    }
}
