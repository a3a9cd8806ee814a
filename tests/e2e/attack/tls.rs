//! Old versions and weak ciphers, asked for by name: there is nothing to fall back to.

use super::{Victim, talk};

/// A TLS record with a hello of this version, which offers these ciphers and no newer version.
fn hello(version: u16, ciphers: &[u16], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend((ciphers.len() as u16 * 2).to_be_bytes());
    body.extend(ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()));
    body.extend([1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = body.len() as u16;
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

const ALERT: u8 = 21;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_below_tls_1_2_and_no_weak_cipher_is_agreed_on() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/files");
    let victim =
        Victim::start(&format!("gateway.tls.cert = \"{files}/cert.pem\"\ngateway.tls.key = \"{files}/key.pem\"")).await;
    const GOOD: &[u16] = &[0xc02b, 0xc02f, 0xc030, 0x009c, 0x002f, 0xc013];
    // Groups, point formats and signature schemes, as every client sends them.
    const USUAL: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1];
    for (what, hello, alert) in [
        ("SSL 3.0", hello(0x0300, GOOD, USUAL), PROTOCOL_VERSION),
        ("TLS 1.0", hello(0x0301, GOOD, USUAL), PROTOCOL_VERSION),
        ("TLS 1.1", hello(0x0302, GOOD, USUAL), PROTOCOL_VERSION),
        ("RC4", hello(0x0303, &[0x0005, 0xc011], USUAL), HANDSHAKE_FAILURE),
        ("triple DES", hello(0x0303, &[0x000a, 0xc012], USUAL), HANDSHAKE_FAILURE),
        ("export", hello(0x0303, &[0x0003, 0x0014], USUAL), HANDSHAKE_FAILURE),
        ("no encryption", hello(0x0303, &[0x0001, 0x0002, 0xc006], USUAL), HANDSHAKE_FAILURE),
        ("no forward secrecy", hello(0x0303, &[0x002f, 0x0035, 0x009c], USUAL), HANDSHAKE_FAILURE),
    ] {
        let answer = talk(victim.shared(), &hello).await;
        assert_eq!(answer.first(), Some(&ALERT), "{what} is answered by {}", answer.escape_ascii());
        assert_eq!(answer.get(5..7), Some(&[2, alert][..]), "{what}: {}", answer.escape_ascii());
    }
    // The same hello with something good to choose is answered: it was refused for what it asked for.
    let mut stream = tokio::net::TcpStream::connect(victim.shared()).await.unwrap();
    let mut first = [0];
    tokio::io::AsyncWriteExt::write_all(&mut stream, &hello(0x0303, GOOD, USUAL)).await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
    assert_eq!(first, [22], "TLS 1.2 is not spoken");
    drop(stream);
    victim.is_unharmed().await;
}
