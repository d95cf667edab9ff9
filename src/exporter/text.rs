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
/// Bytes of texts that are kept for those who read them while the next is written: the largest that there is, or several of a
/// usual size.
const KEPT: usize = 2560 << 10;

/// A text that is being written.
#[derive(Debug, Default)]
pub(crate) struct Draft {
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

    /// Adds another one; what it has in whole pieces is not copied.
    pub fn append(&mut self, other: Self) {
        if other.pieces.is_empty() {
            self.push(&other.open);
        } else {
            self.close();
            self.pieces.extend(other.pieces);
            self.open = other.open;
        }
    }

    pub fn push(&mut self, text: &str) {
        let length = self.open.len() + text.len();
        if length > PIECE {
            self.close();
            self.open.reserve_exact(PIECE);
        } else if length > self.open.capacity() {
            // A bot may have a thousand families, and doubling would waste half of what they take.
            self.open.reserve_exact(text.len().max(self.open.len() / 4).max(64));
        }
        self.open.push_str(text);
    }

    #[cfg(any(fuzzing, test))]
    pub fn into_string(mut self) -> String {
        self.close();
        String::from_utf8_lossy(&self.pieces.concat()).into_owned()
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
        self.push(text);
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
    /// Whether it was taken back.
    pub fn is_withdrawn(&self) -> bool {
        locked(&self.pieces).is_none()
    }

    fn piece(&self, number: usize) -> Result<Option<Bytes>, Withdrawn> {
        let pieces = locked(&self.pieces);
        Ok(pieces.as_ref().ok_or(Withdrawn)?.get(number).cloned())
    }
}

/// The text was taken back before the answer was read.
#[derive(Debug, thiserror::Error)]
#[error("newer scrapes needed the memory of this one")]
pub(super) struct Withdrawn;

/// The texts of all sources that somebody still reads, oldest first.
#[derive(Debug, Default)]
pub(super) struct Alive(VecDeque<Weak<Text>>);

impl Alive {
    /// Adds a text that is about to be read.
    pub fn admit(&mut self, text: &Arc<Text>) {
        self.0.push_back(Arc::downgrade(text));
    }

    /// Makes room for the next, before it is written, by taking back the oldest if need be.
    pub fn make_room(&mut self) {
        let mut kept = 0;
        let texts: Vec<_> = self.0.drain(..).filter_map(|text| text.upgrade()).collect();
        for text in texts.into_iter().rev() {
            kept += text.length;
            if kept > KEPT {
                *locked(&text.pieces) = None;
            } else {
                self.0.push_front(Arc::downgrade(&text));
            }
        }
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

    /// Bytes that are still to be read.
    pub fn length(&self) -> usize {
        self.left
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
        let mut stuck = Vec::new();
        for _ in 0..5 {
            alive.make_room();
            let text = text("a 1\n", KEPT / 12);
            alive.admit(&text);
            let mut answer = answer(&[&text]);
            answer.frame().await.unwrap().unwrap();
            stuck.push(answer);
            // Nobody holds this one any more, so it takes nobody's room.
            alive.admit(&self::text("b 1\n", KEPT / 4));
        }
        let mut ends = Vec::new();
        for answer in stuck {
            ends.push(answer.collect().await.is_ok());
        }
        assert_eq!(ends, [false, true, true, true, true]);
    }

    #[tokio::test]
    async fn a_draft_that_is_added_stands_where_it_was_added() {
        let mut whole = Draft::default();
        for (line, lines) in [("a 1\n", 1), ("b 2\n", 10_000), ("c 3\n", 2), ("d 4\n", 10_000)] {
            let mut part = Draft::default();
            for _ in 0..lines {
                part.push(line);
            }
            whole.append(part);
            whole.push("e 5\n");
        }
        let bytes = answer(&[&whole.finish()]).collect().await.unwrap().to_bytes();
        let (b, d) = ("b 2\n".repeat(10_000), "d 4\n".repeat(10_000));
        assert_eq!(bytes, format!("a 1\ne 5\n{b}e 5\nc 3\nc 3\ne 5\n{d}e 5\n"));
    }
}
