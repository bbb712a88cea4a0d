//! An answer's body that carries the record of its request, so that the record ends when the body does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use http_body::{Body, Frame, SizeHint};

use super::record::{Passage, Record};

/// An answer's body with the record of its request inside.
pub struct Recorded<B> {
    pub(super) body: B,
    pub(super) record: Option<Box<Record>>,
}

impl<B> Recorded<B> {
    /// A body whose request was recorded elsewhere.
    pub const fn unrecorded(body: B) -> Self {
        Self { body, record: None }
    }

    /// The body itself.
    pub const fn get_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B: Body + Unpin> Body for Recorded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let passage = match &frame {
            Some(Ok(frame)) => {
                if let (Some(record), Some(data)) = (&mut this.record, frame.data_ref()) {
                    record.passed(data.remaining());
                }
                // Whoever reads may stop here, without asking for the end.
                if this.body.is_end_stream() { Passage::Complete } else { Passage::Open }
            }
            Some(Err(_)) => Passage::Broken,
            None => Passage::Complete,
        };
        if passage != Passage::Open
            && let Some(mut record) = this.record.take()
        {
            record.body_ends(passage);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
