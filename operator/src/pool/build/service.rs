//! The Service: where clients reach the pool, under the pool's name.

use corral_crds::pool::ServiceKind;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::names;
use crate::pool::validate::ValidPool;

/// The Service.
pub fn service(pool: &ValidPool) -> Service {
    let spec = &pool.spec.service;
    let kind = match spec.kind {
        ServiceKind::ClusterIP => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
    };
    let mut metadata = pool.object_meta(&pool.name);
    metadata.annotations = Some(spec.annotations.clone()).filter(|all| !all.is_empty());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(names::selector(&pool.name)),
            // Said, not left out: readiness must mean something, whoever sets it by hand.
            publish_not_ready_addresses: Some(false),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(spec.port),
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("client".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Where clients in the cluster reach the pool, as `host:port`.
pub fn endpoint(pool: &ValidPool) -> String {
    format!("{}.{}.svc:{}", pool.name, pool.namespace, pool.spec.service.port)
}
