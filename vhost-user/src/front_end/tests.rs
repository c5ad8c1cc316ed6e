use std::thread;

use super::*;
use crate::message::Head;

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects a front-end to a back-end that answers `before` requests as usual and the next request
/// with `answer`.
fn answered(
    before: usize,
    answer: impl FnOnce(Head) -> Message + Send + 'static,
    ask: impl FnOnce(&mut FrontEnd) -> Result<(), FrontEndError>,
) -> Result<(), FrontEndError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut back_end = Connection::new(theirs).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..before {
            let question = receive(&mut back_end);
            let features = question.head.reply(&u64::MAX.to_le_bytes());
            if question.head.kind().unwrap().has_reply() {
                back_end.send(&features, &[]).unwrap();
            }
        }
        let question = receive(&mut back_end);
        back_end.send(&answer(question.head), &[]).unwrap();
    });
    let mut front_end = FrontEnd::new(ours, PATIENCE).unwrap();
    if before > 0 {
        let acks = ProtocolFeatures::REPLY_ACK;
        front_end.negotiate(F_PROTOCOL_FEATURES, acks).unwrap();
    }
    let result = ask(&mut front_end);
    server.join().unwrap();
    result
}

/// The number of requests that [`FrontEnd::negotiate`] makes.
const NEGOTIATION: usize = 5;

fn receive(connection: &mut Connection) -> Message {
    loop {
        if let Some((message, _)) = connection.recv().unwrap() {
            return message;
        }
        let [readable] = poll([Interest::readable(connection)], Some(PATIENCE)).unwrap();
        assert!(readable, "nothing was asked");
    }
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_without_end() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut front_end = FrontEnd::new(ours, Duration::ZERO).unwrap();
    let error = front_end.get_features().unwrap_err();
    assert!(matches!(error, FrontEndError::NoAnswer(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "the back-end does not answer GET_FEATURES"
    );
}

#[test]
fn a_back_end_that_leaves_is_noticed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut front_end = FrontEnd::new(ours, PATIENCE).unwrap();
    drop(theirs);
    let error = front_end.get_features().unwrap_err();
    assert!(matches!(error, FrontEndError::Connection(error) if error.is_closed()));
}

#[test]
fn answers_to_something_else_are_refused() {
    let other = |_| Message::request(Code::GET_QUEUE_NUM.number(), &[]).head;
    let reply = |head: Head| head.reply(&[0; 8]);
    let short = |head: Head| head.reply(&[0; 7]);
    let question = |head: Head| Message::request(head.request, &[0; 8]);
    let ask = |front_end: &mut FrontEnd| front_end.get_features().map(drop);
    assert!(answered(0, reply, ask).is_ok());
    for result in [
        answered(0, move |head| reply(other(head)), ask),
        answered(0, short, ask),
        answered(0, question, ask),
    ] {
        assert!(
            matches!(result, Err(FrontEndError::Answer(_))),
            "{result:?}"
        );
    }
}

#[test]
fn refusals_are_told_from_success() {
    let ask = |front_end: &mut FrontEnd| front_end.request(Request::SetOwner).map(drop);
    let ack = |success| move |head: Head| head.reply(&Reply::ack(success).payload);
    assert!(answered(NEGOTIATION, ack(true), ask).is_ok());
    let refused = answered(NEGOTIATION, ack(false), ask);
    assert!(
        matches!(refused, Err(FrontEndError::Refused(_))),
        "{refused:?}"
    );
    let empty = |head: Head| head.reply(&[]);
    let read = |front_end: &mut FrontEnd| front_end.get_config(0, 8).map(drop);
    let refused = answered(NEGOTIATION, empty, read);
    assert!(
        matches!(refused, Err(FrontEndError::Refused(_))),
        "{refused:?}"
    );
}
