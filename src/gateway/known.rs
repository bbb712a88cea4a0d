//! Bodies that one worker has understood and whose prompts were asked for again: clients repeat themselves to the byte.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::mem::take;
use std::rc::Rc;

use super::understand::Understood;
use crate::request::fingerprint::PickBits;
use crate::request::verbatim::{Name, Verbatim};

/// What was understood of bodies, by a keyed hash of their bytes: it holds names and no prompt. It is worth what the
/// rules are worth, so a reload begins a new one. A library's cache would be shared, or keep an order that nobody asks for.
#[derive(Debug)]
pub(super) struct Known<V = Understood> {
    names: Verbatim,
    generations: RefCell<Generations<V>>,
}

/// What was asked for lately, and what was so before: once there is no room for more, the older half goes.
#[derive(Debug)]
struct Generations<V> {
    young: Generation<V>,
    old: Generation<V>,
}

type Generation<V> = HashMap<Name, Rc<V>, BuildHasherDefault<PickBits>>;

impl<V> Default for Known<V> {
    fn default() -> Self {
        let generations = RefCell::new(Generations { young: Generation::default(), old: Generation::default() });
        Self { names: Verbatim::default(), generations }
    }
}

impl<V> Known<V> {
    /// Under which name what is understood of these parts may be remembered.
    pub(super) fn name(&self, parts: &[&[u8]]) -> Name {
        self.names.name(parts)
    }

    /// What was understood under this name.
    pub(super) fn get(&self, name: &Name) -> Option<Rc<V>> {
        let mut generations = self.generations.borrow_mut();
        if let Some(known) = generations.young.get(name) {
            return Some(Rc::clone(known));
        }
        let known = generations.old.remove(name)?;
        generations.add(*name, Rc::clone(&known));
        Some(known)
    }

    /// Remembers what was understood.
    pub(super) fn remember(&self, name: Name, understood: &Rc<V>) {
        self.generations.borrow_mut().add(name, Rc::clone(understood));
    }
}

impl<V> Generations<V> {
    fn add(&mut self, name: Name, understood: Rc<V>) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = take(&mut self.young);
        }
        self.young.insert(name, understood);
    }
}

/// How many bodies a worker remembers.
const REMEMBERED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_goes_first() {
        let known = Known::<usize>::default();
        let names: Vec<_> = (0..REMEMBERED * 2).map(|number| known.name(&[&number.to_le_bytes()])).collect();
        let held = || {
            let generations = known.generations.borrow();
            generations.young.len() + generations.old.len()
        };
        for (number, name) in names.iter().enumerate() {
            assert!(known.get(name).is_none());
            known.remember(*name, &Rc::new(number));
            assert_eq!(known.get(&names[0]).as_deref(), Some(&0), "it is asked for all the time");
            assert!(held() <= REMEMBERED, "{} after {number}", held());
        }
        assert_eq!(known.get(&names[REMEMBERED * 2 - 1]).as_deref(), Some(&(REMEMBERED * 2 - 1)));
        assert!(known.get(&names[100]).is_none());
        assert!(held() >= REMEMBERED / 2);
    }
}
