//! One connection: read a request, decide, write the answer as the plan says, again. Where the plan cuts, the
//! connection ends in just that place.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{self, Answer};
use super::fault::{CutAt, How};
use super::plan::{Content, Framing, Plan};
use super::reader::{Head, Reader, Stop};
use super::routes::{self, Reply, Route};
use super::state::{Received, State};

/// How long an ended connection waits for its peer to end it too.
const LINGER: Duration = Duration::from_secs(5);
/// How long a stalled connection is held.
const LONGEST_STALL: Duration = Duration::from_secs(15 * 60);
/// Between two writes that should arrive as two.
const BETWEEN_PACKETS: Duration = Duration::from_millis(2);

/// A connection of the simulated upstream.
struct Connection {
    reader: Reader<TcpStream>,
    number: u64,
    state: Arc<State>,
    counted_bytes: u64,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It takes another request.
    Keep,
    /// It ends, in order.
    Close,
    /// The plan ends it.
    Cut(How),
}

/// Counts a connection as open while it lives.
struct Open(Arc<State>);

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, number: u64, state: Arc<State>) {
    state.count(|counts| {
        counts.connections += 1;
        counts.open += 1;
    });
    let _open = Open(Arc::clone(&state));
    let _ = stream.set_nodelay(true);
    let mut connection = Connection { reader: Reader::new(stream), number, state, counted_bytes: 0 };
    let cut_at_once = connection.state.memory().connections.pop_front();
    if let Some(how) = cut_at_once {
        connection.end(Next::Cut(how)).await;
        return;
    }
    let next = loop {
        match connection.exchange().await {
            Ok(Next::Keep) => {}
            Ok(next) => break next,
            // The peer has gone while we wrote.
            Err(_) => return,
        }
    };
    connection.end(next).await;
}

impl Connection {
    /// One request and its answer.
    async fn exchange(&mut self) -> io::Result<Next> {
        let head = match self.reader.head().await {
            Ok(head) => head,
            Err(stop) => return self.stopped(stop).await,
        };
        let route = Route::of(&head);
        let Some(kind) = route.kind() else {
            return self.take(&head, Plan::default()).await;
        };
        let mut plan = self.state.plan(kind);
        if plan.delay.is_zero() {
            plan.delay = self.state.options.answer_delay;
        }
        match plan.cut {
            Some((CutAt::BeforeRead, how)) => return Ok(Next::Cut(how)),
            Some((CutAt::Request(bytes), how)) if bytes < head.raw.len() => {
                let mut part = head;
                part.raw.truncate(bytes);
                self.record(&part, Bytes::new(), false);
                return Ok(Next::Cut(how));
            }
            Some((CutAt::AfterHeader, how)) => {
                self.record(&head, Bytes::new(), false);
                return Ok(Next::Cut(how));
            }
            Some((CutAt::Request(bytes), how)) => {
                // Beyond the end of the request this is the place before the answer.
                let limit = bytes - head.raw.len();
                plan.cut = Some((CutAt::BeforeAnswer, how));
                return self.take_within(&head, plan, limit).await;
            }
            _ => {}
        }
        self.take(&head, plan).await
    }

    /// Reads the body, answers.
    async fn take(&mut self, head: &Head, plan: Plan) -> io::Result<Next> {
        self.take_within(head, plan, usize::MAX).await
    }

    /// Reads at most `limit` bytes of the body; answers if that was all of it.
    async fn take_within(&mut self, head: &Head, mut plan: Plan, limit: usize) -> io::Result<Next> {
        if head.has_body() && head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.write(&answer::interim(100)).await?;
        }
        let mut body = BytesMut::new();
        let read = self.reader.body(head, limit, &mut body).await;
        let body = body.freeze();
        if let Err(stop) = read {
            self.record(head, body, false);
            return match (stop, plan.cut) {
                (Stop::Limit, Some((_, how))) => Ok(Next::Cut(how)),
                (stop, _) => self.stopped(stop).await,
            };
        }
        self.record(head, body.clone(), true);
        let reply = routes::answer(&self.state, head, &body, &mut plan);
        if !plan.delay.is_zero() {
            sleep(plan.delay).await;
        }
        self.deliver(head, reply, &plan).await
    }

    /// Writes the answer as planned.
    async fn deliver(&mut self, head: &Head, reply: Reply, plan: &Plan) -> io::Result<Next> {
        if let Some((CutAt::BeforeAnswer, how)) = plan.cut {
            return Ok(Next::Cut(how));
        }
        for status in &plan.interim {
            self.write(&answer::interim(*status)).await?;
            sleep(BETWEEN_PACKETS).await;
        }
        let mut last = head.last || plan.framing == Framing::UntilClose;
        let pieces = match reply {
            Reply::Proper(answer) => {
                let answer = if plan.padded > 0 { answer.padded(plan.padded) } else { answer };
                let answer = if plan.encoded { answer.encoded() } else { answer };
                let answer = if head.last { answer.header("connection", "close") } else { answer };
                answer.pieces(plan.framing, head.method == "HEAD")
            }
            Reply::Raw(bytes, ends) => {
                last |= ends;
                vec![bytes]
            }
        };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let allowed = match plan.cut {
            Some((CutAt::Within(bytes), _)) => bytes,
            Some((CutAt::BeforeEnd, _)) => length.saturating_sub(1),
            _ => length,
        };
        self.write_pieces(pieces, allowed, plan).await?;
        if Route::of(head).kind().is_some() && matches!(plan.cut, None | Some((CutAt::AfterAnswer, _))) {
            self.state.count(|counts| counts.answered += 1);
        }
        Ok(match plan.cut {
            Some((_, how)) => Next::Cut(how),
            None if last => Next::Close,
            None => Next::Keep,
        })
    }

    /// Writes the first `allowed` bytes of `pieces`, each piece alone, or in the steps of the plan.
    async fn write_pieces(&mut self, pieces: Vec<Bytes>, mut allowed: usize, plan: &Plan) -> io::Result<()> {
        if let Some((step, every)) = plan.trickle {
            let mut bytes = Bytes::from(pieces.concat());
            bytes.truncate(allowed);
            for part in bytes.chunks(step.max(1)) {
                self.write(part).await?;
                sleep(every).await;
            }
            return Ok(());
        }
        let apart = matches!(plan.content, Content::KeyEcho(_));
        for mut piece in pieces {
            piece.truncate(allowed);
            allowed -= piece.len();
            self.write(&piece).await?;
            if apart {
                sleep(BETWEEN_PACKETS).await;
            }
        }
        Ok(())
    }

    /// What to do where reading stopped.
    async fn stopped(&mut self, stop: Stop) -> io::Result<Next> {
        let rest = Bytes::copy_from_slice(self.reader.rest());
        self.count_bytes();
        if rest.is_empty() && matches!(stop, Stop::Ended) {
            return Ok(Next::Close);
        }
        self.state.record(Received {
            connection: self.number,
            method: String::new(),
            path: String::new(),
            head: rest,
            body: Bytes::new(),
            extra: Bytes::new(),
            complete: false,
            at: Instant::now(),
        });
        self.state.count(|counts| counts.malformed += 1);
        let refusal = Answer::html(400).header("connection", "close");
        self.write(&refusal.pieces(Framing::Length, false).concat()).await?;
        Ok(Next::Close)
    }

    /// Remembers and counts a request, but for those that are about the simulator itself.
    fn record(&mut self, head: &Head, body: Bytes, complete: bool) {
        self.count_bytes();
        let route = Route::of(head);
        if matches!(route, Route::Control | Route::Video) {
            return;
        }
        self.state.record(Received {
            connection: self.number,
            method: head.method.clone(),
            path: head.path.clone(),
            head: head.raw.clone(),
            body,
            extra: Bytes::copy_from_slice(self.reader.rest()),
            complete,
            at: Instant::now(),
        });
        self.state.count(|counts| {
            counts.requests += 1;
            counts.posts += u64::from(route == Route::Submission);
            counts.polls += u64::from(matches!(route, Route::Poll(_)));
        });
    }

    fn count_bytes(&mut self) {
        let read = self.reader.total - self.counted_bytes;
        self.counted_bytes = self.reader.total;
        self.state.count(|counts| counts.bytes += read);
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.stream.write_all(bytes).await
    }

    /// Ends the connection.
    async fn end(mut self, next: Next) {
        let how = match next {
            Next::Cut(how) => {
                self.state.count(|counts| counts.cut += 1);
                how
            }
            Next::Keep | Next::Close => How::Fin,
        };
        match how {
            How::Fin => {
                // What is unread when a socket is closed turns the end into a reset, so it is read first.
                let _ = self.reader.stream.shutdown().await;
                let _ = timeout(LINGER, self.drain()).await;
            }
            How::Reset => {
                let _ = self.reader.stream.set_zero_linger();
            }
            How::Stall => {
                let _ = timeout(LONGEST_STALL, self.peer_gone()).await;
            }
        }
    }

    /// Reads and drops whatever still comes.
    async fn drain(&mut self) {
        let mut dropped = [0; 4096];
        while matches!(self.reader.stream.read(&mut dropped).await, Ok(1..)) {}
    }

    /// Waits until the peer ends the connection, and reads nothing.
    async fn peer_gone(&self) {
        loop {
            match self.reader.stream.ready(Interest::READABLE).await {
                Ok(ready) if ready.is_read_closed() => return,
                // Unread data keep the socket ready; only its end is of interest.
                Ok(_) => sleep(Duration::from_millis(20)).await,
                Err(_) => return pending().await,
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counts| counts.open = counts.open.saturating_sub(1));
    }
}
