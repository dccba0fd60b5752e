//! The API over HTTPS with a certificate of one's own authority, and what the commands say without it.

use crate::support::{
    SOON,
    process::{Process, run, trireme},
};

const SPEC: &str = "tasks: {a: {tool: {name: calculator, args: {expression: 6 * 7}}}}\noutput: \"{{ a }}\"\n";

#[tokio::test]
async fn commands_speak_https_with_the_authority_that_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pair = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let signed = pair();
    let ca = file("tls.crt", &signed.cert.pem());
    let other = file("other.crt", &pair().cert.pem());
    let spec = file("spec.yaml", SPEC);
    let mut command = trireme(&["dev", "--listen", "127.0.0.1:0"]);
    command.env("TRIREME__COORDINATOR__TLS__CERT_FILE", &ca);
    command.env("TRIREME__COORDINATOR__TLS__KEY_FILE", file("tls.key", &signed.signing_key.serialize_pem()));
    let mut process = Process::start("dev", command);
    let base = process.address("listening on").await.replace("http://", "https://");

    let submit = async |more: &[&str]| {
        run(&[&["submit", &*spec, "--follow", "--server", &*base], more].concat()).await
    };
    assert_eq!(submit(&["--ca-file", &ca]).await.expect(0, &["run succeeded"]).out.trim(), "42");
    let health = format!("{base}/readyz");
    run(&["health", &health, "--ca-file", &ca]).await.expect(0, &[]);
    // nothing is sent to somebody whom nobody vouches for
    for more in [&[][..], &["--ca-file", &other]] {
        let refused = submit(more).await;
        refused.expect(69, &["invalid peer certificate", "--ca-file"]);
        assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    }
    let refused = run(&["health", &health]).await;
    assert_eq!(refused.expect(69, &["certificate", "--ca-file"]).err.lines().count(), 1, "{}", refused.err);
    submit(&["--ca-file", &spec]).await.expect(64, &["--ca-file", "no certificate"]);
    process.stop(SOON).await;
}
