//! Corral's controllers.
