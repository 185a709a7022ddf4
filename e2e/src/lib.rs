//! A real cluster on one machine, and the stories that run on it.
