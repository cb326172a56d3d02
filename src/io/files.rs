//! Files of one fixed state, read by path: a commit's tree or a folder on disk.
//!
//! What is rendered is read through [`Files`] and nothing else, so that a render needs no working copy, and so that `validate DIR`
//! reads a folder as the leader reads a commit. Paths are relative, with `/` between their parts, and `..` is resolved by the text as
//! Docker's CLI does it. Nothing outside the root can be read, by `..` or through a symbolic link.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file read. The engine takes configs up to 1 MB and secrets up to 500 KB; nothing that we render is larger.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files of one fixed state.
pub trait Files {
    /// The file's content; none if there is no such file.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError>;

    /// What a folder holds, by name; none if there is no such folder.
    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>, FileError>;
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the folder.
    pub name: String,
    /// What it is, symbolic links followed.
    pub kind: EntryKind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Anything else: a submodule, a socket, a link that leads nowhere or outside.
    Other,
}

/// Why a file that is there cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It leads out of the root.
    #[error("{path} leads out of {root}: only what lies inside can be read")]
    Outside {
        /// As asked for.
        path: String,
        /// Out of what.
        root: String,
    },
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error("{path} has {bytes} bytes, more than the {FILE_BYTES_MAX} that are read")]
    TooLarge {
        /// As asked for.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// It is no plain file.
    #[error("{path} is {what}: put a plain file there")]
    NotAFile {
        /// As asked for.
        path: String,
        /// What it is instead.
        what: &'static str,
    },
    /// What is stored stands for something that is not here.
    #[error("{path} is {how}: it would be deployed as it is stored, so it is refused")]
    StandIn {
        /// As asked for.
        path: String,
        /// By what.
        how: &'static str,
    },
    /// The store failed.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// As asked for.
        path: String,
        /// What happened.
        reason: String,
    },
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    confined: bool,
}

impl Folder {
    /// Everything below `root`, and nothing else.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), confined: true }
    }

    /// Paths relative to `base`, wherever they lead: for `deploy -c` and `plan -c`, where the files are the user's own and `../` is as
    /// good as in `docker stack deploy`.
    pub fn unconfined(base: impl Into<PathBuf>) -> Self {
        Self { root: base.into(), confined: false }
    }

    /// Where `path` really is; none if there is nothing.
    fn locate(&self, path: &str) -> Result<Option<PathBuf>, FileError> {
        let outside = || FileError::Outside { path: path.to_owned(), root: self.root.display().to_string() };
        let asked = if self.confined {
            self.root.join(normalise(path).ok_or_else(outside)?.join("/"))
        } else {
            self.root.join(path)
        };
        let real = match asked.canonicalize() {
            Ok(real) => real,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(unreadable(path, &error)),
        };
        if self.confined {
            let root = self.root.canonicalize().map_err(|error| unreadable(path, &error))?;
            if !real.starts_with(root) {
                return Err(outside());
            }
        }
        Ok(Some(real))
    }
}

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let Some(real) = self.locate(path)? else { return Ok(None) };
        read_plain(path, &real).and_then(|content| refuse_stand_ins(path, content)).map(Some)
    }

    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>, FileError> {
        let Some(real) = self.locate(folder)? else { return Ok(None) };
        if !real.is_dir() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&real).map_err(|error| unreadable(folder, &error))? {
            let entry = entry.map_err(|error| unreadable(folder, &error))?;
            // A name that is no UTF-8 can be named by no compose file either.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = match self.locate(&below(folder, &name)) {
                Ok(Some(real)) if real.is_dir() => EntryKind::Folder,
                Ok(Some(real)) if real.is_file() => EntryKind::File,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name, kind });
        }
        entries.sort();
        Ok(Some(entries))
    }
}

/// The parts of `path` without `.` and `..`; none if it leads out of its root or is absolute.
pub(super) fn normalise(path: &str) -> Option<Vec<&str>> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// The path of `name` in `folder`, where an empty folder is the root.
pub(super) fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Refuses what git filters put in a file's place: deployed as it is stored, a secret would silently be its own ciphertext.
pub(super) fn refuse_stand_ins(path: &str, content: Vec<u8>) -> Result<Vec<u8>, FileError> {
    let how = if content.starts_with(b"\0GITCRYPT\0") {
        "encrypted by git-crypt"
    } else if content.starts_with(b"version https://git-lfs.github.com/spec/") {
        "a pointer of git-lfs"
    } else {
        return Ok(content);
    };
    Err(FileError::StandIn { path: path.to_owned(), how })
}

fn read_plain(path: &str, real: &Path) -> Result<Vec<u8>, FileError> {
    let metadata = real.metadata().map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(FileError::NotAFile { path: path.to_owned(), what: "a folder" });
    }
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned(), what: "neither file nor folder" });
    }
    // The size is checked on what was read: the file may grow between the two.
    let file = std::fs::File::open(real).map_err(|error| unreadable(path, &error))?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|error| unreadable(path, &error))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes: metadata.len() });
    }
    Ok(content)
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn unreadable(path: &str, reason: &dyn std::fmt::Display) -> FileError {
    FileError::Unreadable { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join("root").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let folder = Folder::new(dir.path().join("root"));
        (dir, folder)
    }

    #[test]
    fn a_file_is_read_and_an_absent_one_is_none() {
        let (_dir, folder) = folder_with(&[("a/b.txt", "hello")]);
        let a = Entry { name: "a".to_owned(), kind: EntryKind::Folder };
        assert_eq!(folder.list(""), Ok(Some(vec![a])));
        assert_eq!(folder.read("a/b.txt"), Ok(Some(b"hello".to_vec())));
        assert_eq!(folder.read("./a/../a/b.txt"), Ok(Some(b"hello".to_vec())));
        assert_eq!(folder.read("a/c.txt"), Ok(None));
        assert_eq!(folder.read("a/b.txt/c"), Ok(None));
        assert!(matches!(folder.read("a"), Err(FileError::NotAFile { .. })));
    }

    #[test]
    fn nothing_outside_the_root_can_be_read() {
        let (dir, folder) = folder_with(&[("a/b.txt", "hello")]);
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", dir.path().join("root/link")).unwrap();
        for path in ["../secret", "a/../../secret", "/etc/passwd", "link"] {
            assert!(matches!(folder.read(path), Err(FileError::Outside { .. })), "{path}");
        }
        let entries = folder.list("").unwrap().unwrap();
        assert_eq!(entries.iter().find(|e| e.name == "link").unwrap().kind, EntryKind::Other);
    }

    #[test]
    fn deploy_reads_beside_its_folder_as_docker_does() {
        let (dir, _folder) = folder_with(&[("a/b.txt", "hello"), ("common.env", "A=1")]);
        let folder = Folder::unconfined(dir.path().join("root/a"));
        assert_eq!(folder.read("../common.env"), Ok(Some(b"A=1".to_vec())));
    }

    #[test]
    fn what_git_filters_left_in_a_files_place_is_refused() {
        let (_dir, folder) = folder_with(&[
            ("key", "\0GITCRYPT\0abc"),
            ("big", "version https://git-lfs.github.com/spec/v1\noid sha256:1"),
        ]);
        for path in ["key", "big"] {
            assert!(matches!(folder.read(path), Err(FileError::StandIn { .. })), "{path}");
        }
    }
}
