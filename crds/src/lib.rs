//! Corral's Kubernetes API.
