//! The slots of the upstream's pace, as a shared ledger keeps them (`MONEY.md` M27).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::Ledger;
use crate::admission::pace::{Slot, Slots};

/// The pace of all replicas that share a ledger.
pub struct SharedPace(pub Arc<dyn Ledger>);

impl Slots for SharedPace {
    fn reserve(&self, interval: Duration) -> Pin<Box<dyn Future<Output = Option<Slot>> + Send + '_>> {
        Box::pin(async move { self.0.next_slot(interval).await.ok() })
    }

    fn pause(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if self.0.pause(wait).await.is_err() {
                warn!("the other replicas could not be told that the upstream wants a pause");
            }
        })
    }
}
