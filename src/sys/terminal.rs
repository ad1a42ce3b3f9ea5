//! What the kernel knows of a terminal.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Says whether `fd` is a terminal that knows its size. Windows and screens do, serial lines don't.
pub fn has_a_size(fd: BorrowedFd<'_>) -> bool {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open for the borrow, and TIOCGWINSZ fills one `winsize`.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    answer == 0 && size.ws_row > 0 && size.ws_col > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{Winsize, openpty};
    use std::os::fd::AsFd;

    #[test]
    fn a_window_has_a_size_and_a_line_has_none() {
        let sized = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let window = openpty(Some(&sized), None).unwrap();
        let line = openpty(None, None).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(has_a_size(window.slave.as_fd()));
        assert!(!has_a_size(line.slave.as_fd()));
        assert!(!has_a_size(file.as_fd()));
    }
}
