//! Questions to the host and their answers. Task context; the answers come from the bottom half.
//!
//! A question is noted before its message is posted, and forgotten when its asker has the answer or gave up: an answer that nobody
//! waits for finds nothing.

use arrayvec::ArrayVec;
use core::time::Duration;

use undercroft_hal::Task;

use super::{Core, Life, PATIENCE, poll};
use crate::BusError;
use crate::wire::message::VersionResponse;

/// Questions under way at most.
const QUESTIONS: usize = 16;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The answer to the first message.
    Version,
    /// All offers were sent.
    Offers,
    /// A list of pages was taken: its handle, its channel.
    Created(u32, u32),
    /// A channel was opened: its number, the number of the request.
    Opened(u32, u32),
    /// A list of pages is not used any more: its handle.
    TornDown(u32),
    /// A channel was moved.
    Moved(u32),
    /// All is over.
    Unloaded,
}

impl Question {
    /// The channel without which there will be no answer.
    const fn channel(self) -> Option<u32> {
        match self {
            Self::Created(_, channel) | Self::Opened(channel, _) | Self::Moved(channel) => Some(channel),
            _ => None,
        }
    }
}

/// What the host said.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// With nothing more to say.
    Done,
    /// A status, 0 for success.
    Status(u32),
    /// The answer to the first message, and the features of 6.0.
    Version(VersionResponse, u32),
}

/// The questions under way.
pub(super) struct Questions(ArrayVec<(Question, Option<Answer>), QUESTIONS>);

impl Questions {
    pub(super) const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    fn add(&mut self, question: Question) -> Result<(), BusError> {
        self.0.retain(|(other, _)| *other != question);
        self.0.try_push((question, None)).map_err(|_| BusError::TooMuch)
    }

    fn forget(&mut self, question: Question) {
        self.0.retain(|(other, _)| *other != question);
    }

    fn answer_of(&self, question: Question) -> Option<Answer> {
        self.0.iter().find(|(other, _)| *other == question)?.1
    }

    /// Leaves an answer for its asker; the first counts. `false`: nobody asked.
    pub(super) fn answer(&mut self, question: Question, answer: Answer) -> bool {
        match self.0.iter_mut().find(|(other, _)| *other == question) {
            Some((_, place)) => {
                place.get_or_insert(answer);
                true
            }
            None => false,
        }
    }
}

impl Core {
    /// Notes the question, has `send` send what asks it, and waits for the answer.
    pub(super) fn ask(
        &self,
        cx: &Task,
        question: Question,
        send: impl FnOnce() -> Result<(), BusError>,
    ) -> Result<Answer, BusError> {
        self.ask_for(cx, question, PATIENCE, send)
    }

    pub(super) fn ask_for(
        &self,
        cx: &Task,
        question: Question,
        patience: Duration,
        send: impl FnOnce() -> Result<(), BusError>,
    ) -> Result<Answer, BusError> {
        self.link.lock().questions.add(question)?;
        let mut answer = send().map(|()| None);
        if let Ok(answer) = &mut answer {
            poll(cx, patience, || {
                let link = self.link.lock();
                *answer = link.questions.answer_of(question);
                answer.is_some() || self.hopeless(&link, question)
            });
        }
        let mut link = self.link.lock();
        link.questions.forget(question);
        match answer {
            Err(error) => Err(error),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) if link.life == Life::Down => Err(BusError::Down),
            Ok(None) if self.hopeless(&link, question) => Err(BusError::Rescinded),
            Ok(None) => Err(BusError::NoAnswer),
        }
    }

    fn hopeless(&self, link: &super::Link, question: Question) -> bool {
        (link.life == Life::Down && question != Question::Unloaded)
            || question.channel().is_some_and(|channel| link.offers.is_rescinded(channel))
    }
}
