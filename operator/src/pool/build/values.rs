//! Small values that several parts of the pod are made of.

use corral_crds::IntOrString as SpecValue;
use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, HTTPGetAction, Probe, SeccompProfile, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The user that both containers run as: nobody.
pub(super) const USER: i64 = 65_534;

pub(super) fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn http_get(path: &str) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(i32::from(corral_wire::ports::ADMIN)),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    }
}

/// A probe of the sidecar's admin port.
pub(super) fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(http_get(path)),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        success_threshold: Some(1),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// What restricted Pod Security asks of a container, and no writable root.
pub(super) fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

pub(super) fn quantity(value: &SpecValue) -> Quantity {
    Quantity(value.to_string())
}

pub(super) fn int_or_string(value: &SpecValue) -> IntOrString {
    match value {
        // Bounded by the schema far below.
        SpecValue::Int(number) => IntOrString::Int(i32::try_from(*number).unwrap_or(i32::MAX)),
        SpecValue::String(text) => IntOrString::String(text.clone()),
    }
}
