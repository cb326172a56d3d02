//! How full a disk is.

use std::io;
use std::path::Path;

/// How much of the disk that holds `path` is in use, in per cent, rounded down; as `df` has it, what only root may use counts as used.
pub fn used_percent(path: &Path) -> io::Result<u8> {
    let disk = rustix::fs::statvfs(path)?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let usable = used.saturating_add(disk.f_bavail);
    let percent = if usable == 0 { 0 } else { u128::from(used) * 100 / u128::from(usable) };
    Ok(u8::try_from(percent).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_path_is_somewhat_full_and_one_that_is_not_there_is_an_error() {
        assert!(used_percent(Path::new("/")).unwrap() <= 100);
        assert!(used_percent(Path::new("/nowhere/at/all")).is_err());
    }
}
