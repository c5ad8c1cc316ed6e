//! Tests with messages that the client of the vfio-user crate does not send.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

const VERSION: u16 = 1;
const REGION_READ: u16 = 9;
const REGION_WRITE_MULTI: u16 = 15;

/// Sends a command, checks that it succeeds, and returns the payload of the reply.
fn ask(socket: &mut UnixStream, command: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![7, 0];
    message.extend(command.to_le_bytes());
    message.extend((16 + payload.len() as u32).to_le_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    socket.write_all(&message).unwrap();
    let mut header = [0; 16];
    socket.read_exact(&mut header).unwrap();
    assert_eq!(header[8..], [1, 0, 0, 0, 0, 0, 0, 0], "a reply, no error");
    let len = u32::from_le_bytes(header[4..8].try_into().unwrap());
    let mut answer = vec![0; len as usize - 16];
    socket.read_exact(&mut answer).unwrap();
    answer
}

/// Encodes the offset in BAR 0 and the length of an access.
fn place(offset: u64, len: u32) -> Vec<u8> {
    [&offset.to_le_bytes()[..], &[0; 4], &len.to_le_bytes()].concat()
}

#[test]
fn several_writes_may_come_in_one_message() {
    let host = Host::start();
    let mut socket = UnixStream::connect(host.path()).unwrap();
    let capabilities = br#"{"capabilities":{"write_multiple":true}}"#;
    let version = [&[0, 0, 1, 0], &capabilities[..], &[0]].concat();
    let answer = ask(&mut socket, VERSION, &version);
    let answer = String::from_utf8_lossy(&answer[4..]).into_owned();
    assert!(answer.contains(r#""write_multiple":true"#), "{answer}");
    let mut writes = 2u64.to_le_bytes().to_vec();
    for status in [1, 3] {
        writes.extend(place(common::DEVICE_STATUS, 1));
        writes.extend([status, 0, 0, 0, 0, 0, 0, 0]);
    }
    let done = ask(&mut socket, REGION_WRITE_MULTI, &writes);
    assert_eq!(done, 2u64.to_le_bytes());
    let status = place(common::DEVICE_STATUS, 1);
    let read = ask(&mut socket, REGION_READ, &status);
    assert_eq!(read, [&status[..], &[3]].concat());
}
