//! Files of keys and passwords: read whole, never more than a bound.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file's bytes; otherwise what is wrong with it.
pub(super) fn read(path: &Path, most_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // one byte more than allowed tells whether there is more
    File::open(path)
        .and_then(|file| file.take(most_bytes + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    if bytes.len() as u64 > most_bytes {
        return Err(format!(
            "`{}` has more than {most_bytes} bytes",
            path.display()
        ));
    }
    Ok(bytes)
}
