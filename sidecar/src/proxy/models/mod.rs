//! The models of this Ollama: how many slots each really has, which are loaded, how many fit, and how they bear what they
//! are sent.

mod fit;
mod hidden;
mod kinds;
mod show;
