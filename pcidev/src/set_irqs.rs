//! The request DEVICE_SET_IRQS, by which a client sets up interrupts of each kind.

use ipc::SharedEventFd;
use rustix::io::Errno;
use vfio_user::server::{IrqAction, IrqData, SetIrqs};

/// An interrupt that a client can set up.
pub trait ClientInterrupt {
    /// Masks, unmasks or triggers the interrupt now.
    fn act(&self, action: IrqAction);

    /// Sets the eventfd that the interrupt signals from now on. `None` means that the interrupt
    /// signals no eventfd from now on.
    fn set_eventfd(&self, eventfd: Option<SharedEventFd>);

    /// Drops the client's eventfd, unmasks the interrupt, and clears it if it is pending.
    fn disconnect(&self);
}

/// Carries out a client's request for interrupts of one kind.
///
/// # Errors
///
/// EINVAL when an interrupt of the request does not exist or a descriptor is not an eventfd.
/// EOPNOTSUPP when the request has eventfds that would mask or unmask an interrupt.
pub fn set_irqs<I: ClientInterrupt>(interrupts: &[I], request: SetIrqs) -> Result<(), Errno> {
    let range = request.start as usize..request.start as usize + request.count as usize;
    let chosen = interrupts.get(range).ok_or(Errno::INVAL)?;
    match (request.data, request.action) {
        (IrqData::None, IrqAction::Trigger) if request.count == 0 => {
            interrupts.iter().for_each(I::disconnect);
        }
        (IrqData::None, action) => chosen.iter().for_each(|interrupt| interrupt.act(action)),
        (IrqData::Bool(flags), action) => {
            let flagged = chosen.iter().zip(flags).filter(|(_, flag)| *flag);
            flagged.for_each(|(interrupt, _)| interrupt.act(action));
        }
        (IrqData::EventFds(fds), IrqAction::Trigger) => {
            let eventfds = fds
                .into_iter()
                .map(|fd| fd.map(SharedEventFd::from_fd).transpose());
            let eventfds: Vec<_> = eventfds
                .collect::<Result<_, _>>()
                .map_err(|_| Errno::INVAL)?;
            let pairs = chosen.iter().zip(eventfds);
            pairs.for_each(|(interrupt, eventfd)| interrupt.set_eventfd(eventfd));
        }
        (IrqData::EventFds(_), IrqAction::Mask | IrqAction::Unmask) => {
            return Err(Errno::OPNOTSUPP);
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;

    use super::*;

    /// A request for the interrupts `start..start + count`.
    pub fn request(start: u32, count: u32, action: IrqAction, data: IrqData) -> SetIrqs {
        SetIrqs {
            index: 0,
            start,
            count,
            action,
            data,
        }
    }

    /// An eventfd, and a copy of its descriptor for a client's request.
    pub fn eventfd() -> (SharedEventFd, OwnedFd) {
        let eventfd = SharedEventFd::new().unwrap();
        let fd = eventfd.try_clone().unwrap();
        (eventfd, fd)
    }

    /// An interrupt that records the calls of its methods.
    #[derive(Default)]
    struct Recorder(RefCell<Vec<String>>);

    impl ClientInterrupt for Recorder {
        fn act(&self, action: IrqAction) {
            self.0.borrow_mut().push(format!("{action:?}"));
        }

        fn set_eventfd(&self, eventfd: Option<SharedEventFd>) {
            let event = format!("eventfd {}", eventfd.is_some());
            self.0.borrow_mut().push(event);
        }

        fn disconnect(&self) {
            self.0.borrow_mut().push("disconnect".to_owned());
        }
    }

    /// The method calls that a request causes at each of three interrupts.
    fn done(request: SetIrqs) -> Result<[String; 3], Errno> {
        let interrupts: [Recorder; 3] = Default::default();
        set_irqs(&interrupts, request)?;
        Ok(interrupts.map(|recorder| recorder.0.take().join(", ")))
    }

    #[test]
    fn an_action_is_done_to_the_interrupts_that_were_named_or_flagged() {
        let named = request(1, 2, IrqAction::Mask, IrqData::None);
        assert_eq!(done(named).unwrap(), ["", "Mask", "Mask"]);
        let flags = IrqData::Bool(vec![true, false, true]);
        let flagged = request(0, 3, IrqAction::Trigger, flags);
        assert_eq!(done(flagged).unwrap(), ["Trigger", "", "Trigger"]);
    }

    #[test]
    fn eventfds_go_to_their_interrupts_and_a_missing_one_takes_the_old_one_away() {
        let fds = IrqData::EventFds(vec![Some(eventfd().1), None]);
        let set = request(1, 2, IrqAction::Trigger, fds);
        assert_eq!(done(set).unwrap(), ["", "eventfd true", "eventfd false"]);
    }

    #[test]
    fn triggering_no_interrupt_disconnects_all() {
        let off = request(0, 0, IrqAction::Trigger, IrqData::None);
        assert_eq!(done(off).unwrap(), ["disconnect"; 3]);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let beyond = request(2, 2, IrqAction::Mask, IrqData::None);
        assert_eq!(done(beyond), Err(Errno::INVAL));
        let resample = IrqData::EventFds(vec![None]);
        let unmask = request(0, 1, IrqAction::Unmask, resample);
        assert_eq!(done(unmask), Err(Errno::OPNOTSUPP));
        let file = IrqData::EventFds(vec![Some(tempfile::tempfile().unwrap().into())]);
        let wrong = request(0, 1, IrqAction::Trigger, file);
        assert_eq!(done(wrong), Err(Errno::INVAL));
    }
}
