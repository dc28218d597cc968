//! A connection's future that goes on at once when it woke itself.
//!
//! hyper wakes a connection's own task when a request takes its body. Left to the runtime, that wakes an idle
//! worker as well, which takes the connection over in the midst of its request: two switches of threads more
//! for each call.
//!
//! Must never lose a wake, nor keep a worker for itself: after [`TURNS_MAX`] turns others have theirs.

use futures_util::task::AtomicWaker;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls in a row of a future that wakes itself each time.
const TURNS_MAX: usize = 4;

/// Nobody polls: a wake goes to the task.
const IDLE: u8 = 0;
/// It is polled, and was not woken meanwhile.
const POLLED: u8 = 1;
/// It was woken while it was polled.
const WOKEN: u8 = 2;

/// A future that has its own turns.
pub(super) struct Turns<'f, F> {
    /// The future itself.
    pub(super) inner: Pin<&'f mut F>,
    wakes: Arc<Wakes>,
    waker: Waker,
}

struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Only what is being polled takes a wake itself; the poll that follows sees all that came before it.
        let noted = self.state.compare_exchange(POLLED, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(IDLE) {
            self.task.wake();
        }
    }
}

impl<'f, F: Future> Turns<'f, F> {
    pub(super) fn of(inner: Pin<&'f mut F>) -> Self {
        let wakes = Arc::new(Wakes { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        Self { inner, waker: Waker::from(Arc::clone(&wakes)), wakes }
    }
}

impl<F: Future> Future for Turns<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let state = &this.wakes.state;
        this.wakes.task.register(cx.waker());
        for _turn in 0..TURNS_MAX {
            state.store(POLLED, Ordering::Release);
            let polled = this.inner.as_mut().poll(&mut Context::from_waker(&this.waker));
            let quiet = state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if polled.is_ready() || quiet {
                return polled;
            }
        }
        state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::{TURNS_MAX, Turns};
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_that_wakes_itself_goes_on_without_its_task_being_woken() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut polls = 0;
        let future = pin!(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(polls) } else { Poll::Pending }
        }));
        let mut turns = Turns::of(future);
        assert_eq!(Pin::new(&mut turns).poll(&mut Context::from_waker(&waker)), Poll::Ready(2));
        assert_eq!(task.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn one_that_always_wakes_itself_lets_others_have_their_turn() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let polls = AtomicUsize::new(0);
        let future = pin!(poll_fn(|cx| {
            polls.fetch_add(1, Ordering::SeqCst);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let mut turns = Turns::of(future);
        assert!(Pin::new(&mut turns).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), TURNS_MAX);
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_wake_between_polls_goes_to_the_task_that_polled_last() {
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let mut kept = None;
        let future = pin!(poll_fn(|cx| {
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let mut turns = Turns::of(future);
        for task in [&first, &second] {
            let waker = Waker::from(Arc::clone(task));
            assert!(Pin::new(&mut turns).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(turns);
        kept.unwrap().wake();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        const SENT: usize = 20_000;
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for n in 0..SENT {
                sender.send(n).await.unwrap();
            }
        });
        let receiving = pin!(async {
            let mut seen = 0;
            while let Some(n) = receiver.recv().await {
                assert_eq!(n, seen);
                seen += 1;
            }
            seen
        });
        assert_eq!(Turns::of(receiving).await, SENT);
        sending.await.unwrap();
    }
}
