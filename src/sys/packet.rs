//! A packet socket (packet(7)) that sees nothing but what a DHCP client needs: DHCP replies and ARP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};

/// Whole Ethernet frames, in and out of one interface. Never blocks.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub fn open(interface_index: u32) -> Result<Self> {
        // Protocol 0 receives nothing, so nothing slips in before the filter is there.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("socket(AF_PACKET, SOCK_RAW): is the module af_packet missing?")?;
        attach_filter(&socket).context("setsockopt(SO_ATTACH_FILTER)")?;
        bind(&socket, interface_index)
            .with_context(|| format!("bind(AF_PACKET, interface {interface_index})"))?;
        Ok(Self(socket))
    }

    /// Receives a frame, cut off where the buffer ends; `WouldBlock` when none is there.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())?)
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_raw_fd(), frame, MsgFlags::empty())?)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One instruction of the kernel's classic packet filter: what to do, how far to go on if so and if not,
/// operand.
const fn step(code: u32, if_so: u8, if_not: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: if_so,
        jf: if_not,
        k: operand,
    }
}

/// ARP, and unfragmented UDP to port 68; all else is dropped before it costs anything.
const FILTER: [libc::sock_filter; 12] = [
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 12), // the Ethernet type
    step(libc::BPF_JMP | libc::BPF_JEQ, 8, 0, libc::ETH_P_ARP as u32),
    step(libc::BPF_JMP | libc::BPF_JEQ, 0, 8, libc::ETH_P_IP as u32),
    step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 23), // the protocol
    step(libc::BPF_JMP | libc::BPF_JEQ, 0, 6, libc::IPPROTO_UDP as u32),
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 20), // the fragment's offset
    step(libc::BPF_JMP | libc::BPF_JSET, 4, 0, 0x1fff),
    step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14), // the IP header's length
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 16),  // the destination port
    step(libc::BPF_JMP | libc::BPF_JEQ, 0, 1, 68),
    step(libc::BPF_RET, 0, 0, u32::MAX),
    step(libc::BPF_RET, 0, 0, 0),
];

fn attach_filter(socket: &OwnedFd) -> io::Result<()> {
    let mut steps = FILTER;
    let program = libc::sock_fprog {
        len: steps.len() as libc::c_ushort,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program and the steps that it points to outlive the call, which copies them and writes
    // nothing.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Ok(Errno::result(answer).map(drop)?)
}

fn bind(socket: &OwnedFd, interface_index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface_index as libc::c_int;
    // SAFETY: the address is a whole `sockaddr_ll` of the given length, which the call only reads.
    let answer = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Ok(Errno::result(answer).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::net::Interfaces;
    use nix::sched::{CloneFlags, unshare};
    use std::net::UdpSocket;

    /// What the socket on `lo` sees, as the last bytes of each frame.
    fn seen_of(payloads: &[(u16, &str)]) -> Vec<String> {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Interfaces::open().unwrap().set_up("lo").unwrap();
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let socket = PacketSocket::open(index).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (port, payload) in payloads {
            // Nobody listens there: the error of a former datagram may be reported now.
            let _ = sender.send_to(payload.as_bytes(), ("127.0.0.1", *port));
            let _ = sender.take_error();
        }
        let mut buffer = [0; 2048];
        let mut seen = Vec::new();
        while let Ok(length) = socket.receive(&mut buffer) {
            seen.push(String::from_utf8_lossy(&buffer[42..length]).into_owned());
        }
        seen
    }

    #[test]
    fn only_udp_to_port_68_gets_through() {
        let work = || seen_of(&[(67, "to 67"), (68, "to 68"), (69, "to 69"), (68, "again")]);
        let mut seen = std::thread::spawn(work).join().unwrap();
        // On `lo` a packet socket sees each packet leave and arrive.
        seen.dedup();
        assert_eq!(seen, ["to 68", "again"]);
    }
}
