//! A line to the service that repeats, loses, alters or holds back what it carries.

use crate::grpc::client::{Client, Line, Message, Reply, Replying, lost};

/// What a line does to what it carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// Flips a bit in the proof of each message.
    AlterMessage,
    /// Flips a bit in the proof of each reply.
    AlterReply,
    /// Sends nothing; what was to be sent can be taken from it.
    Hold,
    /// Loses the first reply.
    LoseOnce,
    /// Sends each message twice; the second reply is the one that arrives.
    Twice,
}

/// A bad line, with what it carried.
pub(super) struct BadLine<'a> {
    client: &'a Client,
    how: How,
    /// The messages that were to be carried.
    pub(super) messages: Vec<Message>,
    /// The replies that the service gave, whether they arrived or not.
    pub(super) replies: Vec<Reply>,
}

impl<'a> BadLine<'a> {
    pub(super) const fn new(client: &'a Client, how: How) -> Self {
        Self { client, how, messages: Vec::new(), replies: Vec::new() }
    }

    /// Whether the service replied more than once, and always with the same bytes.
    pub(super) fn replies_are_one(&self) -> bool {
        self.replies.len() > 1 && self.replies.windows(2).all(|pair| pair[0] == pair[1])
    }

    async fn carry(&mut self, mut message: Message) -> Result<Reply, tonic::Status> {
        self.messages.push(message.clone());
        let mut client = self.client.clone();
        match self.how {
            How::AlterMessage => flip_bit(&mut message.proof),
            How::Hold => return Err(lost()),
            How::Twice => self.replies.push(client.send(message.clone()).await?),
            How::AlterReply | How::LoseOnce => {}
        }
        let mut reply = client.send(message).await?;
        self.replies.push(reply.clone());
        match self.how {
            How::AlterReply => flip_bit(&mut reply.proof),
            How::LoseOnce if self.replies.len() == 1 => return Err(lost()),
            How::AlterMessage | How::Hold | How::LoseOnce | How::Twice => {}
        }
        Ok(reply)
    }
}

impl Line for BadLine<'_> {
    fn send(&mut self, message: Message) -> Replying<'_> {
        Box::pin(self.carry(message))
    }
}

/// Flips the lowest bit of the last octet.
pub(super) fn flip_bit(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}
