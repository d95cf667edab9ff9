//! Answers in gzip: compressed piece by piece while they are read, so that no second text is kept.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::text::{Answer, Withdrawn};

/// Bytes from which on compression is worth its time: less than this crosses a network in one go.
const LEAST: usize = 16 << 10;

/// Answers that are compressed at a time: those of two scrapers. Each holds a third of a megabyte until it is read, by whoever reads
/// nothing too; others are answered as they are.
static PLACES: Semaphore = Semaphore::const_new(2);

/// The body of an answer in gzip.
#[derive(Debug)]
pub(super) struct Gzipped {
    answer: Answer,
    /// None when the last byte was handed over.
    encoder: Option<GzEncoder<Vec<u8>>>,
    _place: SemaphorePermit<'static>,
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfinished {
    #[error(transparent)]
    Withdrawn(#[from] Withdrawn),
    #[error("the answer can't be compressed: {0}")]
    Compression(#[from] std::io::Error),
}

impl Gzipped {
    /// The answer in gzip, or as it is where that would not pay.
    pub fn of(answer: Answer) -> Result<Self, Answer> {
        if answer.length() < LEAST {
            return Err(answer);
        }
        let Ok(place) = PLACES.try_acquire() else {
            return Err(answer);
        };
        Ok(Self {
            answer,
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
            _place: place,
        })
    }

    /// The next bytes; none are an end.
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Unfinished>> {
        while let Some(encoder) = &mut self.encoder {
            let piece = match Pin::new(&mut self.answer).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece.transpose()?.and_then(|frame| frame.into_data().ok()),
            };
            let Some(piece) = piece else {
                let end = self.encoder.take().map(GzEncoder::finish).transpose()?;
                return Poll::Ready(Ok(end.unwrap_or_default()));
            };
            encoder.write_all(&piece)?;
            let ready = std::mem::take(encoder.get_mut());
            if !ready.is_empty() {
                return Poll::Ready(Ok(ready));
            }
        }
        Poll::Ready(Ok(Vec::new()))
    }
}

impl Body for Gzipped {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        self.get_mut().next(context).map(|next| match next {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(Frame::data(bytes.into()))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

/// Whether whoever asks takes gzip, and likes it no less than the text as it is (RFC 9110, section 12.5.3).
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, 0.0);
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    for coding in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
            .map_or(Some(1.0), |quality| quality.trim().parse().ok())
            .filter(|quality| (0.0..=1.0).contains(quality))
            .unwrap_or(0.0_f32);
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = quality,
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;
    use crate::exporter::text::Draft;

    fn answer(lines: u32) -> (Answer, String) {
        let (mut draft, mut text) = (Draft::default(), String::new());
        for line in 0..lines {
            let _ = writeln!(draft, "some_series{{number=\"{line}\"}} {line}");
            let _ = writeln!(text, "some_series{{number=\"{line}\"}} {line}");
        }
        let mut answer = Answer::default();
        answer.push(draft.finish());
        (answer, text)
    }

    #[tokio::test]
    async fn a_large_answer_is_compressed_and_is_the_same_afterwards() {
        let (large, text) = answer(20_000);
        let bytes = Gzipped::of(large).unwrap().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < text.len() / 3, "{}", bytes.len());
        let mut read = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut read).unwrap();
        assert!(read == text);
        assert!(Gzipped::of(answer(100).0).is_err());
    }

    #[test]
    fn gzip_is_used_where_it_is_taken() {
        let takes = |accepts: &[&str]| {
            let header = |text: &&str| (header::ACCEPT_ENCODING, text.parse().unwrap());
            takes_gzip(&accepts.iter().map(header).collect())
        };
        for accepted in [
            &["gzip"][..],
            &["GZip;q=0.5"],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["deflate", "gzip"],
            &["*"],
            &["x-gzip"],
            &["br, gzip ; q=0.8, identity;q=0.5"],
        ] {
            assert!(takes(accepted), "{accepted:?}");
        }
        for refused in [
            &[][..],
            &[""],
            &["identity"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["gzip;q=0.5, identity"],
            &["gzip;q=many"],
            &["br, deflate"],
        ] {
            assert!(!takes(refused), "{refused:?}");
        }
    }
}
