//! Files in a place that nobody vouches for: an unpacked image, an installed disk, a stick. A device node, a
//! pipe or a socket there is never opened: that alone can have consequences (a tape rewinds, a pipe's other end
//! goes on), or never come to an end. Nothing unsafe: it is here because siblings need it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Opens the regular file at `path` for reading; anything else there is an error.
pub fn open_regular(path: &Path) -> io::Result<File> {
    reopen_regular(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens the regular file at `path` for reading and writing; makes an empty one where there is nothing. Anything
/// else there, a link too, is an error.
pub fn open_or_create_regular(path: &Path) -> io::Result<File> {
    match File::options().read(true).write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    reopen(open(path, flags, Mode::empty())?, OFlag::O_RDWR)
}

/// Opens for reading what `found` (by `O_PATH`, so it isn't open yet) stands for, if that is a regular file.
pub fn reopen_regular(found: OwnedFd) -> io::Result<File> {
    reopen(found, OFlag::O_RDONLY)
}

fn reopen(found: OwnedFd, access: OFlag) -> io::Result<File> {
    if !is_regular(&found)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    // The very file that was looked at, whatever its name leads to by now.
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(File::from(open(
        path.as_str(),
        access | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?))
}

/// Whether something is a regular file.
pub fn is_regular(found: impl AsFd) -> Result<bool, Errno> {
    let kind = SFlag::from_bits_truncate(fstat(found)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFREG)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::{makedev, mknod};
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        symlink("file", path("link")).unwrap();
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        // No driver has these numbers: to open the node would be ENXIO.
        for (name, kind) in [("character", SFlag::S_IFCHR), ("block", SFlag::S_IFBLK)] {
            mknod(&path(name), kind, Mode::S_IRWXU, makedev(4000, 4000)).unwrap();
        }
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for name in ["file", "link"] {
            let mut text = String::new();
            open_regular(&path(name))
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "text");
        }
        for name in ["pipe", "character", "block", "socket", "."] {
            let error = open_regular(&path(name)).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{name}");
        }
        for name in ["pipe", "character", "block", "socket", ".", "link"] {
            let error = open_or_create_regular(&path(name)).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{name}");
        }
        for name in ["file", "new"] {
            open_or_create_regular(&path(name))
                .unwrap()
                .write_all(b"more")
                .unwrap();
            assert_eq!(fs::read(path(name)).unwrap(), b"more");
        }
        let missing = open_regular(&path("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let beyond = open_regular(&path("file/x")).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::NotADirectory);
    }
}
