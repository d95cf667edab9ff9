//! The text of a page in pieces that any number of answers share, and that can be taken back from those who don't read on.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::locked;

/// Bytes of one piece. A connection that is stuck keeps what it was given, so this is small beside a page.
const PIECE: usize = 16 << 10;
/// Texts of one source that exist at a time: those of two scrapers, and one more for a person who looks.
const ALIVE: usize = 3;

/// A text that is being written.
#[derive(Default)]
pub(super) struct Draft {
    pieces: Vec<Bytes>,
    open: String,
}

impl Draft {
    fn close(&mut self) {
        if !self.open.is_empty() {
            let piece = std::mem::take(&mut self.open).into_bytes().into_boxed_slice();
            self.pieces.push(piece.into());
        }
    }

    pub fn finish(mut self) -> Arc<Text> {
        self.close();
        Arc::new(Text {
            length: self.pieces.iter().map(Bytes::len).sum(),
            pieces: Mutex::new(Some(self.pieces)),
        })
    }
}

impl fmt::Write for Draft {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.open.len() + text.len() > PIECE {
            self.close();
        }
        self.open.push_str(text);
        Ok(())
    }
}

/// A text that is complete.
#[derive(Debug)]
pub(super) struct Text {
    length: usize,
    pieces: Mutex<Option<Vec<Bytes>>>,
}

impl Text {
    fn piece(&self, number: usize) -> Result<Option<Bytes>, Withdrawn> {
        let pieces = locked(&self.pieces);
        Ok(pieces.as_ref().ok_or(Withdrawn)?.get(number).cloned())
    }
}

/// The text was taken back before the answer was read.
#[derive(Debug, thiserror::Error)]
#[error("newer scrapes needed the memory of this one")]
pub(super) struct Withdrawn;

/// The texts of one source that somebody still reads, oldest first.
#[derive(Debug, Default)]
pub(super) struct Alive(VecDeque<Weak<Text>>);

impl Alive {
    /// Makes room for one more, by taking back the oldest if need be.
    pub fn admit(&mut self, text: &Arc<Text>) {
        self.0.retain(|other| other.strong_count() > 0);
        while self.0.len() >= ALIVE {
            if let Some(oldest) = self.0.pop_front().and_then(|oldest| oldest.upgrade()) {
                *locked(&oldest.pieces) = None;
            }
        }
        self.0.push_back(Arc::downgrade(text));
    }
}

/// The body of an answer: some texts, one after the other.
#[derive(Debug, Default)]
pub(super) struct Answer {
    texts: VecDeque<Arc<Text>>,
    /// The next piece of the first text.
    next: usize,
    left: usize,
}

impl Answer {
    pub fn push(&mut self, text: Arc<Text>) {
        self.left += text.length;
        self.texts.push_back(text);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let this = self.get_mut();
        while let Some(text) = this.texts.front() {
            match text.piece(this.next) {
                Ok(Some(piece)) => {
                    this.next += 1;
                    this.left -= piece.len();
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Ok(None) => {
                    this.texts.pop_front();
                    this.next = 0;
                }
                Err(withdrawn) => return Poll::Ready(Some(Err(withdrawn))),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use http_body_util::BodyExt;

    use super::*;

    fn text(line: &str, lines: usize) -> Arc<Text> {
        let mut draft = Draft::default();
        for _ in 0..lines {
            draft.write_str(line).unwrap();
        }
        draft.finish()
    }

    fn answer(texts: &[&Arc<Text>]) -> Answer {
        let mut answer = Answer::default();
        for text in texts {
            answer.push(Arc::clone(text));
        }
        answer
    }

    #[tokio::test]
    async fn an_answer_is_its_texts_in_order_and_knows_its_length() {
        let (small, none, large) = (text("a 1\n", 1), text("", 0), text("b 22\n", 20_000));
        for _ in 0..2 {
            let answer = answer(&[&small, &none, &large]);
            assert_eq!(answer.size_hint().exact(), Some(100_004));
            let bytes = answer.collect().await.unwrap().to_bytes();
            assert_eq!(bytes, format!("a 1\n{}", "b 22\n".repeat(20_000)));
        }
        assert!(answer(&[]).is_end_stream());
    }

    #[tokio::test]
    async fn whoever_does_not_read_on_loses_the_text_and_all_others_keep_theirs() {
        let mut alive = Alive::default();
        for _ in 0..10 {
            // Nobody holds it any more, so it takes no place.
            alive.admit(&text("b 1\n", 1));
        }
        let mut stuck = Vec::new();
        for _ in 0..ALIVE + 2 {
            let text = text("a 1\n", PIECE);
            alive.admit(&text);
            let mut answer = answer(&[&text]);
            answer.frame().await.unwrap().unwrap();
            stuck.push(answer);
        }
        let mut ends = Vec::new();
        for answer in stuck {
            ends.push(answer.collect().await.is_ok());
        }
        assert_eq!(ends, [false, false, true, true, true]);
    }
}
