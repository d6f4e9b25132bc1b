//! A blocking netlink socket: request and acknowledgement, dump, and nftables batch.
//!
//! A socket belongs to the network namespace of the thread that opened it, wherever it is used
//! later: that is how one thread configures a pod's namespace without entering it.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::encode::{self, ACK, DUMP, Message, attributes, u32_at};

/// The kernel answers at once; a socket that says nothing for this long never will.
const ANSWER_SECONDS_MAX: i64 = 10;
/// Room for a whole ruleset in one datagram (10,000 Services are about 10 MB).
const SEND_BUFFER_BYTES: usize = 64 << 20;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_CAPPED`: the answer holds only the header of the request.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow, among them a sentence that says why.
const ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("{}{}", io::Error::from_raw_os_error(*errno), explain(.message))]
    Refused { errno: i32, message: String },
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
}

impl NetlinkError {
    pub(crate) fn is(&self, wanted: nix::errno::Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted as i32)
    }
}

fn explain(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
}

impl NetlinkSocket {
    /// `NETLINK_ROUTE`, in the calling thread's network namespace.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(0)
    }

    /// `NETLINK_NETFILTER`, in the calling thread's network namespace.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(12)
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refused without CAP_NET_ADMIN; then sending a large batch says so.
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER_BYTES).ok();
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).ok();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS_MAX, 0))?;
        // Before Linux 4.12 there is no explanation, only the number.
        socket.set_ext_ack(true).ok();
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message) -> Result<(), NetlinkError> {
        let sequence = self.send(&[message.flagged(ACK)])?;
        let mut outcome = Ok(());
        self.receive(sequence, |received| {
            if received.kind != NLMSG_ERROR {
                return false;
            }
            outcome = acknowledgement(received.payload, received.flags);
            true
        })?;
        outcome
    }

    /// Sends one request that is answered by exactly one message and returns its payload.
    pub(crate) fn get(&mut self, message: Message) -> Result<Vec<u8>, NetlinkError> {
        let sequence = self.send(&[message])?;
        let mut outcome = Ok(Vec::new());
        self.receive(sequence, |received| {
            outcome = match received.kind {
                NLMSG_ERROR => acknowledgement(received.payload, received.flags).map(|()| Vec::new()),
                _ => Ok(received.payload.to_vec()),
            };
            true
        })?;
        outcome
    }

    /// Asks for a list and returns the payload of each of its messages.
    pub(crate) fn dump(&mut self, message: Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let sequence = self.send(&[message.flagged(DUMP)])?;
        let mut found = Vec::new();
        let mut outcome = Ok(());
        self.receive(sequence, |received| match received.kind {
            NLMSG_DONE => true,
            NLMSG_ERROR => {
                outcome = acknowledgement(received.payload, received.flags);
                true
            }
            _ => {
                found.push(received.payload.to_vec());
                false
            }
        })?;
        outcome.map(|()| found)
    }

    /// Sends an nftables transaction: all messages take effect, or none does. The first and the
    /// last message are the batch's brackets.
    pub(crate) fn batch(&mut self, mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        assert!(messages.len() >= 3, "a batch has two brackets and something between them");
        // Only the last change is acknowledged; a refused one is reported whether it asks or not.
        let last = messages.len() - 2;
        messages[last] = messages[last].clone().flagged(ACK);
        let first = self.send(&messages)?;
        let last = first.wrapping_add(u32::try_from(last).expect("a batch is under 2^32 messages"));
        let mut outcome = Ok(());
        loop {
            let (datagram, _) = self.receive_datagram()?;
            for received in encode::messages(&datagram) {
                let own = received.sequence.wrapping_sub(first) <= last.wrapping_sub(first) + 1;
                if received.kind != NLMSG_ERROR || !own {
                    continue;
                }
                let answer = acknowledgement(received.payload, received.flags);
                if outcome.is_ok() {
                    outcome = answer;
                }
                // An error of a bracket is an error of the whole batch: nothing follows.
                if received.sequence == last || received.sequence == first || received.sequence == last.wrapping_add(1)
                {
                    return outcome;
                }
            }
        }
    }

    /// Sends the messages as one datagram; returns the sequence number of the first.
    fn send(&mut self, messages: &[Message]) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(&message.encode(self.sequence));
        }
        self.socket.send(&bytes, 0)?;
        Ok(first)
    }

    /// Shows every message that answers `sequence` to `each` until it says that was the last.
    fn receive(&mut self, sequence: u32, mut each: impl FnMut(&encode::Received<'_>) -> bool) -> io::Result<()> {
        loop {
            let (datagram, _) = self.receive_datagram()?;
            for received in encode::messages(&datagram) {
                // A late answer to an earlier request that timed out is not ours.
                if received.sequence == sequence && each(&received) {
                    return Ok(());
                }
            }
        }
    }

    fn receive_datagram(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        loop {
            match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer"));
                }
                other => return other,
            }
        }
    }
}

/// `struct nlmsgerr`: a negative error number (0 is success), then the request's header.
fn acknowledgement(payload: &[u8], flags: u16) -> Result<(), NetlinkError> {
    if payload.len() < 20 {
        return Err(NetlinkError::Socket(io::Error::new(io::ErrorKind::InvalidData, "a short acknowledgement")));
    }
    let errno = i32::from_ne_bytes(payload[..4].try_into().expect("four bytes were taken")).wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    let request_length = if flags & CAPPED == 0 { u32_at(payload, 4) as usize } else { 16 };
    let rest = payload.get((4 + request_length).next_multiple_of(4)..).filter(|_| flags & ACK_TLVS != 0);
    let message = attributes(rest.unwrap_or_default())
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Err(NetlinkError::Refused { errno, message: message.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements() {
        assert!(acknowledgement(&[0; 20], 0).is_ok());
        let mut refused = (-17i32).to_ne_bytes().to_vec();
        refused.extend_from_slice(&[0; 16]);
        refused.extend_from_slice(&[8, 0, 1, 0, b'w', b'h', b'y', 0]);
        let error = acknowledgement(&refused, CAPPED | ACK_TLVS).unwrap_err();
        assert_eq!(error.to_string(), "File exists (os error 17) (why)");
        assert!(error.is(nix::errno::Errno::EEXIST));
        assert!(acknowledgement(&[0; 3], 0).is_err());
    }

    #[test]
    fn links_can_be_listed_without_rights() {
        let mut socket = NetlinkSocket::route().unwrap();
        // RTM_GETLINK, struct ifinfomsg
        let links = socket.dump(Message::new(18, 0, &[0; 16])).unwrap();
        assert!(!links.is_empty());
    }
}
