//! What a poll does to the entry of its job, and when (`MONEY.md` M19 to M22).
