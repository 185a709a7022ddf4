//! Laws 11 and 12, for the fair queue: who is next, one outcome each, no eligible waiter beside a free slot, and nothing left
//! at rest. Beside it runs an oracle that has plain lists, and numbers without rounding.

mod canonical;
mod events;
mod exhaustive;
mod fairness;
mod machine;
mod models;
mod oracle;
mod storms;
mod world;
