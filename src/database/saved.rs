//! A value in a file that survives a crash: written whole or not at all, and known by its checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first word of the first line, and the version of this format.
const MAGIC: &str = "tidegate-saved-1";

/// How the names of files end that are being written, and how old one is that nobody writes.
const DRAFT: &str = "new";
const ABANDONED: Duration = Duration::from_secs(3_600);

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
    // two processes that share a folder must not write into one temporary file, and in two
    // containers both may have the same number
    let draft = path.with_extension(format!("{:016x}.{DRAFT}", fastrand::u64(..)));
    write_draft(&draft, value)
        .and_then(|()| std::fs::rename(&draft, path))
        .and_then(|()| sync_folder(path))
        .map_err(|error| {
            // the draft of a full disk would keep it full
            let _ = std::fs::remove_file(&draft);
            failed(error)
        })?;
    sweep(path);
    Ok(())
}

/// Written piece by piece; the checksum in the first line is known last.
fn write_draft(draft: &Path, value: &impl Serialize) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    let mut body = Summed {
        file: BufWriter::new(file),
        sum: Sha256::new(),
    };
    writeln!(body.file, "{MAGIC} {}", hex(&[0; 32]))?;
    serde_json::to_writer(&mut body, value)?;
    let Summed { mut file, sum } = body;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{MAGIC} {}", hex(&sum.finalize()))?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// A file, and the checksum of what has been written to it.
struct Summed {
    file: BufWriter<File>,
    sum: Sha256,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sum.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Drafts that a crash left behind; one of another process that is being written is younger.
fn sweep(path: &Path) {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified());
    let (Some(folder), Some(stem), Ok(now)) = (path.parent(), path.file_stem(), modified(path))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let drafts = entries.flatten().map(|entry| entry.path()).filter(|draft| {
        let stem_of_draft = draft.file_stem().map(Path::new).and_then(Path::file_stem);
        draft.extension().is_some_and(|last| last == DRAFT) && stem_of_draft == Some(stem)
    });
    for draft in drafts {
        let age = modified(&draft).map(|then| now.duration_since(then).unwrap_or_default());
        if age.is_ok_and(|age| age > ABANDONED) {
            // the next save tries again
            let _ = std::fs::remove_file(&draft);
        }
    }
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
    fn two_who_write_at_once_do_not_meet_and_what_a_crash_left_goes_in_the_end() {
        let folder = Folder::new();
        let path = folder.0.join("rows.saved");
        let (old, young, other) = ("rows.1.new", "rows.2.new", "other.3.new");
        for name in [old, young, other] {
            std::fs::write(folder.0.join(name), "half").unwrap();
        }
        save(&path, &0).unwrap();
        let long_ago = std::fs::metadata(&path).unwrap().modified().unwrap() - ABANDONED * 2;
        for name in [old, other] {
            let file = File::options().write(true).open(folder.0.join(name));
            file.unwrap().set_modified(long_ago).unwrap();
        }
        std::thread::scope(|threads| {
            for thread in 0..8 {
                let path = &path;
                threads.spawn(move || (0..20).for_each(|n| save(path, &(thread + n)).unwrap()));
            }
        });
        assert!(load::<u32>(&path).unwrap().is_some());
        let left = |name| folder.0.join(name).exists();
        assert_eq!([old, young, other].map(left), [false, true, true]);
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
