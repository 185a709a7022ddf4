//! Decides what a request may do under a plan of limits.
