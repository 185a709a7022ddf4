//! The cluster's certificates: one authority, and one certificate for everything that speaks.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::addresses::{AddressPlan, NODES, node_name};

/// Who a certificate is for.
struct Subject {
    /// The files `<file>.crt` and `<file>.key`.
    file: String,
    /// The user that Kubernetes sees.
    user: String,
    /// The group that Kubernetes sees.
    group: Option<&'static str>,
    names: Vec<String>,
    addresses: Vec<Ipv4Addr>,
}

impl Subject {
    fn user(file: &str, user: &str, group: Option<&'static str>) -> Self {
        let (names, addresses) = (Vec::new(), Vec::new());
        Self { file: file.to_owned(), user: user.to_owned(), group, names, addresses }
    }

    fn server(mut self, names: &[&str], addresses: &[Ipv4Addr]) -> Self {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        self.addresses = addresses.to_vec();
        self
    }
}

fn subjects(plan: AddressPlan) -> Vec<Subject> {
    let api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let api_addresses = [plan.kubernetes_service(), plan.node(0), Ipv4Addr::LOCALHOST];
    let mut all = vec![
        Subject::user("apiserver", "kube-apiserver", None).server(&api_names, &api_addresses),
        Subject::user("admin", "admin", Some("system:masters")),
        Subject::user("kube-controller-manager", "system:kube-controller-manager", None),
        Subject::user("kube-scheduler", "system:kube-scheduler", None),
        Subject::user("kube-proxy", "system:kube-proxy", None),
        Subject::user("front-proxy", "front-proxy", None),
    ];
    for node in 0..NODES {
        let name = node_name(node);
        let subject = Subject::user(&name, &format!("system:node:{name}"), Some("system:nodes"));
        all.push(subject.server(&[&name], &[plan.node(node)]));
    }
    all
}

/// Names of the certificates that a kubeconfig is made for.
pub fn users() -> Vec<String> {
    let own = ["admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"].map(String::from);
    own.into_iter().chain((0..NODES).map(node_name)).collect()
}

/// Writes `ca`, every subject's certificate and key, and the keys that sign and verify ServiceAccount tokens.
pub fn write(folder: &Path, plan: AddressPlan) -> Result<()> {
    fs::create_dir_all(folder)?;
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "corral-e2e");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    fs::write(folder.join("ca.crt"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    for subject in subjects(plan) {
        let key = KeyPair::generate()?;
        let certificate = params(&subject)?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{}.crt", subject.file)), certificate.pem())?;
        fs::write(folder.join(format!("{}.key", subject.file)), key.serialize_pem())?;
    }
    let tokens = KeyPair::generate()?;
    fs::write(folder.join("service-account.pub"), tokens.public_key_pem())?;
    Ok(fs::write(folder.join("service-account.key"), tokens.serialize_pem())?)
}

fn params(subject: &Subject) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(subject.names.clone())?;
    let addresses = subject.addresses.iter().map(|address| SanType::IpAddress(IpAddr::V4(*address)));
    params.subject_alt_names.extend(addresses);
    params.distinguished_name.push(DnType::CommonName, &subject.user);
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_needs_a_kubeconfig_has_a_certificate() {
        let files: Vec<_> =
            subjects(AddressPlan::new(0).unwrap()).into_iter().map(|subject| subject.file).collect();
        assert!(users().iter().all(|user| files.contains(user)), "{files:?}");
    }

    #[test]
    fn a_key_and_a_certificate_are_written_for_each() {
        let folder = std::env::temp_dir().join(format!("corral-pki-{}", std::process::id()));
        write(&folder, AddressPlan::new(3).unwrap()).unwrap();
        for user in users() {
            for kind in ["crt", "key"] {
                let pem = fs::read_to_string(folder.join(format!("{user}.{kind}"))).unwrap();
                assert!(pem.starts_with("-----BEGIN "), "{user}.{kind}");
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
