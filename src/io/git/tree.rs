//! A commit's files, read from git's objects: there is no working copy that could be half written or changed by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use git2::{ErrorCode, ObjectType, Oid, Repository};

use crate::io::files::{Entry, EntryKind, FILE_BYTES_MAX, FileError, Files, below, normalise, refuse_stand_ins};

/// Symbolic links followed for one path.
const LINKS_MAX: usize = 16;

/// git's mode of a symbolic link.
const MODE_LINK: i32 = 0o120_000;

/// The files of one commit.
pub struct Tree {
    pub(super) repo: Repository,
    pub(super) root: Oid,
    /// Raised when an object is missing or unreadable: the next fetch makes the clone anew.
    pub(super) damaged: Arc<AtomicBool>,
}

impl Files for Tree {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let not_a_file = |what| FileError::NotAFile { path: path.to_owned(), what };
        let id = match self.resolve(path)? {
            None => return Ok(None),
            Some(Found::Folder(_)) => return Err(not_a_file("a folder")),
            Some(Found::Submodule) => return Err(not_a_file("a submodule, which is not fetched")),
            Some(Found::File(id)) => id,
        };
        self.blob(path, id).and_then(|content| refuse_stand_ins(path, content)).map(Some)
    }

    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>, FileError> {
        let Some(Found::Folder(id)) = self.resolve(folder)? else { return Ok(None) };
        let tree = self.repo.find_tree(id).map_err(|error| self.unreadable(folder, &error))?;
        let mut entries = Vec::with_capacity(tree.len());
        for entry in &tree {
            // A name that is no UTF-8 can be named by no compose file either.
            let Ok(name) = entry.name() else { continue };
            let kind = match (entry.kind(), entry.filemode()) {
                (Some(ObjectType::Tree), _) => EntryKind::Folder,
                (Some(ObjectType::Blob), MODE_LINK) => match self.resolve(&below(folder, name)) {
                    Ok(Some(Found::File(_))) => EntryKind::File,
                    Ok(Some(Found::Folder(_))) => EntryKind::Folder,
                    _ => EntryKind::Other,
                },
                (Some(ObjectType::Blob), _) => EntryKind::File,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: name.to_owned(), kind });
        }
        entries.sort();
        Ok(Some(entries))
    }
}

enum Found {
    File(Oid),
    Folder(Oid),
    Submodule,
}

impl Tree {
    /// Walks down `path`, following links inside the tree.
    fn resolve(&self, path: &str) -> Result<Option<Found>, FileError> {
        let outside = || FileError::Outside { path: path.to_owned(), root: "the repo".to_owned() };
        let mut todo: VecDeque<String> =
            normalise(path).ok_or_else(outside)?.into_iter().map(ToOwned::to_owned).collect();
        let mut folder = self.root;
        let mut above = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    folder = above.pop().ok_or_else(outside)?;
                    continue;
                }
                _ => {}
            }
            let tree = self.repo.find_tree(folder).map_err(|error| self.unreadable(path, &error))?;
            let Some(entry) = tree.get_name(&part) else { return Ok(None) };
            match (entry.kind(), entry.filemode()) {
                (Some(ObjectType::Tree), _) => above.push(std::mem::replace(&mut folder, entry.id())),
                (Some(ObjectType::Blob), MODE_LINK) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FileError::NotAFile { path: path.to_owned(), what: "a loop of links" });
                    }
                    let target = String::from_utf8_lossy(&self.blob(path, entry.id())?).into_owned();
                    if target.starts_with('/') {
                        return Err(outside());
                    }
                    target.rsplit('/').for_each(|part| todo.push_front(part.to_owned()));
                }
                (Some(ObjectType::Blob), _) if todo.is_empty() => return Ok(Some(Found::File(entry.id()))),
                (Some(ObjectType::Commit), _) => return Ok(Some(Found::Submodule)),
                _ => return Ok(None),
            }
        }
        Ok(Some(Found::Folder(folder)))
    }

    fn blob(&self, path: &str, id: Oid) -> Result<Vec<u8>, FileError> {
        let unreadable = |error: git2::Error| self.unreadable(path, &error);
        let store = self.repo.odb().map_err(unreadable)?;
        // The header tells the size without inflating the object.
        let (bytes, _) = store.read_header(id).map_err(unreadable)?;
        if bytes as u64 > FILE_BYTES_MAX {
            return Err(FileError::TooLarge { path: path.to_owned(), bytes: bytes as u64 });
        }
        Ok(store.read(id).map_err(unreadable)?.data().to_vec())
    }

    fn unreadable(&self, path: &str, error: &git2::Error) -> FileError {
        // What the tree names must be there.
        if error.code() == ErrorCode::NotFound || error.class() != git2::ErrorClass::Os {
            self.damaged.store(true, Ordering::Relaxed);
        }
        FileError::Unreadable { path: path.to_owned(), reason: error.message().to_owned() }
    }
}
