//! What must hold, one kind of load a file.

mod validation;
