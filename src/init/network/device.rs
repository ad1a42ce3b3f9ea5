//! A packet socket as the network device of the DHCP client.

use std::os::fd::{AsFd, BorrowedFd};

use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::sys::packet::PacketSocket;

/// DHCP works before any other MTU is known.
const FRAME_BYTES: usize = 1514;

pub(super) struct Device(pub(super) PacketSocket);

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        // Frames from a virtual machine's own host arrive before anybody has filled in their UDP checksum.
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }

    fn receive(&mut self, _now: Instant) -> Option<(Received, ToSend<'_>)> {
        let mut frame = vec![0; FRAME_BYTES];
        // An error is of the interface (down, gone); the next lease tells whether it came back.
        let length = self.0.receive(&mut frame).ok()?;
        frame.truncate(length);
        Some((Received(frame), ToSend(&self.0)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<ToSend<'_>> {
        Some(ToSend(&self.0))
    }
}

pub(super) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct ToSend<'a>(&'a PacketSocket);

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        // What isn't sent is lost, as on any network: DHCP repeats itself.
        let _ = self.0.send(&frame);
        result
    }
}
