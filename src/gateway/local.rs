//! What a worker keeps for itself, so that two workers share as little as they can: two that count the same thing for each
//! request take its cache line from each other each time.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::Gateway;
use super::known::Known;
use super::rules::Rules;
use crate::access::passes::Passes;

/// The rules as one worker has them.
pub(super) struct LocalRules {
    rules: Arc<Rules>,
    /// Whom the worker has met under these rules.
    pub(super) passes: Passes,
    /// What it has understood by them.
    pub(super) known: Known,
}

impl Deref for LocalRules {
    type Target = Arc<Rules>;

    fn deref(&self) -> &Arc<Rules> {
        &self.rules
    }
}

/// The rules in force, as a worker looks them up for each request.
pub(super) struct InForce {
    now: RefCell<Cache<OfGateway, Arc<Rules>>>,
    local: RefCell<Rc<LocalRules>>,
}

impl InForce {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let mut now = Cache::new(OfGateway(gateway));
        let local = LocalRules::of(Arc::clone(now.load()));
        Self { now: RefCell::new(now), local: RefCell::new(local) }
    }

    /// The rules of this moment; a request keeps them to its end.
    pub(super) fn rules(&self) -> Rc<LocalRules> {
        let (mut now, mut local) = (self.now.borrow_mut(), self.local.borrow_mut());
        let now = now.load();
        if !Arc::ptr_eq(now, &local.rules) {
            *local = LocalRules::of(Arc::clone(now));
        }
        Rc::clone(&local)
    }
}

/// Where the rules of the gateway lie.
struct OfGateway(Arc<Gateway>);

impl Deref for OfGateway {
    type Target = ArcSwap<Rules>;

    fn deref(&self) -> &ArcSwap<Rules> {
        &self.0.rules
    }
}

impl LocalRules {
    fn of(rules: Arc<Rules>) -> Rc<Self> {
        Rc::new(Self { passes: Passes::of(&rules.teams), known: Known::default(), rules })
    }
}
