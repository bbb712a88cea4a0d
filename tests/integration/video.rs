//! The main job as a whole: a prompt becomes a video that can be played.
