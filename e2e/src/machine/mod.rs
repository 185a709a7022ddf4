//! This computer: where things are kept, and how commands are run on it.

pub mod cache;
pub mod clock;
pub mod command;
pub mod console;
pub mod lock;
pub mod packages;
pub mod preflight;
pub mod settings;
