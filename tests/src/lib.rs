//! In-process worlds for tests.
