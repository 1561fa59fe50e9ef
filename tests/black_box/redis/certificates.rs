//! Certificates of a CA that only one test knows, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIGURATION: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = tidegate-test
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// A CA and a certificate that it gave to a server on this machine.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Writes them into a folder.
    pub(crate) fn make(folder: &Path) -> Self {
        std::fs::write(folder.join("openssl.cnf"), CONFIGURATION).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf";
        for line in [
            format!("req -x509 {key} -extensions ca -days 2 -keyout ca.key -out ca.pem"),
            format!("req {key} -subj /CN=localhost -keyout server.key -out server.csr"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile openssl.cnf -extensions server -out server.pem"
                .to_owned(),
        ] {
            let made = Command::new("openssl")
                .args(line.split_whitespace())
                .current_dir(folder)
                .output()
                .unwrap_or_else(|error| panic!("openssl: {error}; run scripts/install-deps test"));
            let text = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "openssl {line}: {text}");
        }
        Certificates {
            ca: folder.join("ca.pem"),
            cert: folder.join("server.pem"),
            key: folder.join("server.key"),
        }
    }
}
