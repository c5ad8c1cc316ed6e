//! The tokens that identify the file descriptors that the device watches.

use crate::poller::Source;

/// A descriptor that the device watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The socket that front-ends connect to.
    Listener,
    /// The socket of the connected front-end.
    FrontEnd,
    /// The front-end's eventfd for the kicks of a vhost queue.
    Kick(u16),
    /// The eventfd that clients signal instead of writing the call doorbell of a vhost queue.
    Doorbell(u16),
}

impl From<Token> for Source {
    fn from(token: Token) -> Self {
        let (kind, queue) = match token {
            Token::Listener => (0, 0),
            Token::FrontEnd => (1, 0),
            Token::Kick(queue) => (2, queue),
            Token::Doorbell(queue) => (3, queue),
        };
        Self::Device(kind << 16 | u32::from(queue))
    }
}

impl Token {
    /// The token with this number. The number has to come from [`Source::from`].
    pub(super) fn from_number(number: u32) -> Self {
        let queue = number as u16;
        match number >> 16 {
            0 => Self::Listener,
            1 => Self::FrontEnd,
            2 => Self::Kick(queue),
            _ => Self::Doorbell(queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_told_by_its_number() {
        let tokens = [
            Token::Listener,
            Token::FrontEnd,
            Token::Kick(0),
            Token::Kick(u16::MAX),
            Token::Doorbell(0),
            Token::Doorbell(u16::MAX),
        ];
        for token in tokens {
            let Source::Device(number) = token.into() else {
                panic!("{token:?} is not the device's");
            };
            assert_eq!(Token::from_number(number), token);
        }
    }
}
