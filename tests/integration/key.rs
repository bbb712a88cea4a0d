//! The key goes to the upstream and nowhere else. INV-1 itself is checked wherever a scene ends.
