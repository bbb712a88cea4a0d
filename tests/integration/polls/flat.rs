//! `polls.shape = "flat"`: the wrapper is taken off for clients that only know xAI's form.
