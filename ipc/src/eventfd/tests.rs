use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;

use rustix::fs::MemfdFlags;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Fills the counter of an eventfd to its maximum.
fn fill(eventfd: &SharedEventFd) {
    let highest = u64::MAX - 1;
    rustix::io::write(eventfd, &highest.to_ne_bytes()).unwrap();
}

#[test]
fn many_signals_are_taken_at_once() {
    let ours = SharedEventFd::new().unwrap();
    let theirs = SharedEventFd::from_fd(ours.try_clone().unwrap()).unwrap();
    assert!(!ours.take().unwrap());
    theirs.signal().unwrap();
    theirs.signal().unwrap();
    assert!(ours.take().unwrap());
    assert!(!ours.take().unwrap());
}

#[test]
fn a_full_counter_counts_as_signalled() {
    let eventfd = SharedEventFd::new().unwrap();
    fill(&eventfd);
    eventfd.signal().unwrap();
    assert!(eventfd.take().unwrap());
    assert!(!eventfd.take().unwrap());
}

#[test]
fn an_eventfd_that_blocks_is_made_one_that_does_not() {
    let theirs = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let eventfd = SharedEventFd::from_fd(theirs).unwrap();
    fill(&eventfd);
    eventfd.signal().unwrap();
}

#[test]
fn what_was_signalled_before_it_was_taken_over_is_not_lost() {
    let theirs = eventfd(3, EventfdFlags::CLOEXEC).unwrap();
    assert!(SharedEventFd::from_fd(theirs).unwrap().take().unwrap());
}

#[test]
fn taking_does_not_block_when_the_peer_takes_o_nonblock_off() {
    let eventfd = SharedEventFd::new().unwrap();
    ioctl_fionbio(&eventfd, false).unwrap();
    let (done, result) = channel();
    thread::spawn(move || done.send(eventfd.take().unwrap()).unwrap());
    assert!(!result.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_signal_that_the_peer_makes_block_fails_on_any_thread() {
    let eventfd = SharedEventFd::new().unwrap();
    fill(&eventfd);
    ioctl_fionbio(&eventfd, false).unwrap();
    let (done, result) = channel();
    thread::spawn(move || {
        let first = eventfd.signal().unwrap_err().kind();
        let second = eventfd.signal().unwrap_err().kind();
        eventfd.take().unwrap();
        done.send((first, second, eventfd.signal().is_ok()))
            .unwrap();
    });
    let blocked = io::ErrorKind::TimedOut;
    assert_eq!(
        result.recv_timeout(PATIENCE).unwrap(),
        (blocked, blocked, true)
    );
}

/// An expired timerfd, which is readable like a signalled eventfd.
fn expired_timer() -> OwnedFd {
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1,
    };
    let when = libc::itimerspec {
        it_interval: at_once,
        it_value: at_once,
    };
    // SAFETY: the pointers are valid or null. The descriptor is checked before `OwnedFd` takes it,
    // and has no other owner.
    let timer = unsafe {
        let timer = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC);
        assert_ne!(timer, -1);
        assert_eq!(
            libc::timerfd_settime(timer, 0, &when, std::ptr::null_mut()),
            0
        );
        OwnedFd::from_raw_fd(timer)
    };
    let [expired] = poll([Interest::readable(&timer)], Some(PATIENCE)).unwrap();
    assert!(expired);
    timer
}

#[test]
fn what_is_not_an_eventfd_is_refused() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let (pipe, pipe_end) = rustix::pipe::pipe().unwrap();
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC);
    let others: [(&str, OwnedFd); 9] = [
        ("a file", tempfile::tempfile().unwrap().into()),
        ("a folder", File::open("/").unwrap().into()),
        (
            "zeroes",
            File::options()
                .read(true)
                .write(true)
                .open("/dev/zero")
                .unwrap()
                .into(),
        ),
        (
            "memory",
            rustix::fs::memfd_create("memory", MemfdFlags::CLOEXEC).unwrap(),
        ),
        ("a socket", socket.into()),
        ("the end of a pipe that is read", pipe),
        ("the other end of a pipe", pipe_end),
        ("a timer", expired_timer()),
        ("an epoll instance", epoll.unwrap()),
    ];
    for (kind, fd) in others {
        let refused = SharedEventFd::from_fd(fd);
        assert!(
            matches!(refused, Err(SharedEventFdError::NotAnEventFd)),
            "{kind}"
        );
    }
}

#[test]
fn an_eventfd_that_is_full_when_it_comes_is_refused() {
    let eventfd = SharedEventFd::new().unwrap();
    fill(&eventfd);
    let refused = SharedEventFd::from_fd(eventfd.0);
    assert!(matches!(refused, Err(SharedEventFdError::NotAnEventFd)));
}
