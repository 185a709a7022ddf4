//! The patterns of names and quantities that Kubernetes itself defines.

/// A quantity: `100m`, `64Mi`, `2`, `1.5`.
pub const QUANTITY: &str =
    r"^([0-9]{1,12}([.][0-9]{0,9})?|[.][0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$";
/// An extended resource: a DNS prefix, a slash and a name.
pub const QUALIFIED_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// A share: `25%`.
pub const PERCENT: &str = r"^(100|[0-9]{1,2})%$";
