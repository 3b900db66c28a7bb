//! The server's encryption: who is let in, and what is left of those who are not.

use std::sync::Arc;
use std::time::Duration;

use ams_testing::{rcgen, rustls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsConfigBuilder};

use crate::place::Place;
use crate::serve::{Serving, published};

/// A certificate and its key, PEM.
struct Identity {
    certificate: String,
    key: String,
}

/// Somebody who signs certificates, and two who are signed.
fn identities() -> (String, [Identity; 2]) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    };
    (own, ["127.0.0.1", "client"].map(signed))
}

/// A client that trusts `authority` and shows `identity`.
fn agent(authority: &str, identity: Option<&Identity>) -> Agent {
    let certificate = |pem: &str| Certificate::from_pem(pem.as_bytes()).unwrap();
    let shown = identity.map(|Identity { certificate: own, key }| {
        ClientCert::new_with_certs(
            &[certificate(own)],
            PrivateKey::from_pem(key.as_bytes()).unwrap(),
        )
    });
    let tls: TlsConfigBuilder = TlsConfig::builder();
    let tls = tls
        .root_certs(RootCerts::new_with_certs(&[certificate(authority)]))
        .client_cert(shown)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
    config.timeout_global(Some(Duration::from_secs(20))).build().into()
}

/// Likewise for gRPC.
#[cfg(feature = "grpc")]
fn config(authority: &str, identity: &Identity) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let own = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_client_auth_cert(vec![own], key).unwrap()
}

fn write(place: &Place, name: &str, identity: &Identity) {
    place.write(&format!("{name}.pem"), &identity.certificate);
    place.write(&format!("{name}.key"), &identity.key);
}

#[test]
fn who_has_no_certificate_gets_no_answer() {
    let (place, page) = published();
    let (authority, [server, client]) = identities();
    place.write("authority.pem", &authority);
    write(&place, "server", &server);
    write(&place, "client", &client);
    let files = "--tls-certificate server.pem --tls-key server.key";
    place.refuses(
        &format!("serve models {files} --tls-client-authority server.key"),
        &["server.key: "],
    );
    place.refuses(
        "serve models --tls-certificate server.pem --tls-key authority.pem",
        &["no private key"],
    );
    place.refuses(
        "serve models --tls-certificate server.pem --tls-key client.key",
        &["server.pem: "],
    );

    let arguments = format!(
        "{files} --tls-client-authority authority.pem --client-timeout 2 --idle-timeout 2 --deadline-ms 60000"
    );
    let serving = Serving::asked_by(agent(&authority, Some(&client)), &place, &arguments);
    assert_eq!(serving.score(&page).0, 200);
    #[cfg(feature = "grpc")]
    {
        let message = crate::grpc::message(&page);
        let request = serde_json::json!({"model": "tiny", "page_view": message});
        let config = config(&authority, &client);
        let client = crate::grpc_client::Client::encrypted(&serving, config);
        let said = client.ask("ams.v1.Ranking/Score", &request, &[]);
        assert_eq!(said.unwrap()["items"], serving.score(&page).1["items"]);
    }
    let url = format!("{}/health/live", serving.address);
    assert!(agent(&authority, None).get(&url).call().is_err(), "no certificate");
    let (other, [_, stranger]) = identities();
    assert!(agent(&authority, Some(&stranger)).get(&url).call().is_err(), "signed by a stranger");
    assert!(agent(&other, Some(&client)).get(&url).call().is_err(), "the client trusts others");
    for plain in ["GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", ""] {
        assert!(!serving.raw(plain.as_bytes()).contains("HTTP"), "an answer that is not encrypted");
    }
    assert_eq!(serving.get("/health/live").0, 200);
}

#[test]
fn a_certificate_that_changes_is_shown_to_who_comes_later() {
    let (place, page) = published();
    let (first, [server, _]) = identities();
    write(&place, "server", &server);
    let arguments = "--tls-certificate server.pem --tls-key server.key --deadline-ms 60000";
    let serving = Serving::asked_by(agent(&first, None), &place, arguments);
    let (second, [renewed, _]) = identities();
    let trusts = |authority: &str| {
        agent(authority, None).get(format!("{}/health/live", serving.address)).call().is_ok()
    };
    let admin = |path: &str| {
        let (first, second) = (agent(&first, None), agent(&second, None));
        let url = format!("{}{path}", serving.admin);
        let response = first.get(&url).call().or_else(|_| second.get(&url).call());
        response.unwrap().into_body().read_to_string().unwrap()
    };
    assert_eq!(serving.score(&page).0, 200);
    assert!(trusts(&first) && !trusts(&second));
    // A certificate without its key is not taken up; that nobody is left without an answer is the
    // point.
    place.write("server.pem", &renewed.certificate);
    serving.signal("HUP");
    serving.until("refused", || admin("/metrics").contains("ams_reload_failures_total 1\n"));
    assert!(trusts(&first) && !trusts(&second));
    place.write("server.key", &renewed.key);
    // Without a word from anybody: files are looked at.
    serving.until("taken up", || trusts(&second));
    assert!(!trusts(&first));
    assert_eq!(serving.score(&page).0, 200, "a connection that is open stays so");
}
