//! A file that appears whole or not at all, readable by its owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::OrphansError;
use super::manifest::FileEntry;

/// What a file is called until it is whole.
const PART: &str = "part";

/// Written under a temporary name; [`NewFile::finish`] gives it its own.
pub(super) struct NewFile {
    folder: PathBuf,
    name: String,
    out: Option<BufWriter<File>>,
    bytes: u64,
    crc32c: u32,
}

impl NewFile {
    /// `name` is relative to the folder, with `/` in between.
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self, OrphansError> {
        let part = part(folder, name);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        let opened = opened.map_err(|error| at(&part, error))?;
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            out: Some(BufWriter::with_capacity(256 * 1024, opened)),
            bytes: 0,
            crc32c: 0,
        })
    }

    fn part(&self) -> PathBuf {
        part(&self.folder, &self.name)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), OrphansError> {
        if let Some(out) = &mut self.out {
            out.write_all(bytes)
                .map_err(|error| at(&self.folder.join(&self.name), error))?;
        }
        self.bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        Ok(())
    }

    /// Makes it durable and gives it its name.
    pub(super) fn finish(mut self) -> Result<FileEntry, OrphansError> {
        let path = self.folder.join(&self.name);
        let finished = match self.out.take() {
            Some(out) => out
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .and_then(|file| file.sync_all())
                .and_then(|()| fs::rename(self.part(), &path)),
            None => Ok(()),
        };
        if let Err(error) = finished {
            // The reason is told; what can't be removed is overwritten the next time.
            let _ = fs::remove_file(self.part());
            return Err(at(&path, error));
        }
        Ok(FileEntry {
            path: self.name.clone(),
            bytes: self.bytes,
            crc32c: format!("{:08x}", self.crc32c),
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            // As above.
            let _ = fs::remove_file(self.part());
        }
    }
}

fn part(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{PART}"))
}

/// Makes a folder, and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), OrphansError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| at(path, error))
}

/// An error of a file or folder.
pub(super) fn at(path: &Path, error: std::io::Error) -> OrphansError {
    OrphansError::doing(path.display(), error)
}
