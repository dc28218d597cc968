//! An issuer in the test process: its keys, what they sign, and what it answers.

use crate::mcp::base64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An RSA key of these tests alone (PKCS #1): the library that signs cannot make one.
const RSA_KEY: &str = "\
MIIEogIBAAKCAQEApYUqOgrS455AWTj/I/3yN/pkfTNNeomZf414eVPnqowBEcJF1WsHzswRWphfk5LkoFU1i9OWUZevuVyX/SJU\
vS0jZs35yqUFfkD2KHQb+8+ErwVjSpv8Q8z+IxcCVLqKYjIh9aFlaPp2XYbcBBR9PO7eMmQMASWqiugFE8CmR0oc+lxA58H5UZ0w\
ku2g4kennDXGPndZ5xDXU7A6l37V/k0Mo4hixeDN3teGdf0qjTrFNL36mxcT2JpEFw6AIUUVFYPUnbJOTjrr4po0f9ORu19kghya\
karqkhzIXnjIJhDnShRnBrkIp1waTxrlGVRD0hESik4Wsp4F+ttxu4kCkQIDAQABAoIBAAOtdIHXf2e1rvAZpXraCTGH+sF11Ooc\
0mjtN0XfvdmTjVm2UfWpnA2BW1txJdcH+70FaF8AP+1HB81GDDwu6xzBAL15EyaoUjPbCQ0ZADwT2G8aE24qYAZ4cJW2xvS7NAc7\
o/bWX2EZ77JGDS+F7jM8Cvp7ahQ65n2F1A6BOfq84my/ZuDKRht8L/RJVkFoFgKsEC6BHco6iVv3uvpjWIZgvni77M6dodh++/uN\
jvNGcuTgACfd9IolYfy9cEhNoXxNClfH9FI7ySexPd2HZeQVTLmQmi9e5pVEi6UEmSWTn2H95Sy6miQeKoT0et46W7e5/YxrV3GV\
cXv6YeN7hKUCgYEA4UmCtIxaRChMJ1tevyTIvpU6zRX1lE80O+pqCqa0Yd5H23KcpdZqR92CVsKQ9SpDG7O9Qi7H8fQuQnbVPK4g\
lqFLI3NJCwgJmb9zvywqUscNs/rOIEST3uD+MIrfoH+abXmzCDGtcw5FMnRPTgWH1/JFclOdC7ULRdCIQN8fjd0CgYEAvBXLpCEv\
ZPhjsc7Q2OgpYY5PO29UgkPb3UmWq4fOmLG8YIxCtHw+8jfMygUaeNrqdmsCUj6aVO1r/rIHj6UizAW6XvUtHyLWAL6yW3mdJSMz\
96bVwYNbPokQZllGgMRzeGAavsp40ECG4oLYoZfpiRqQPMnphavgkRgLTMI5fkUCgYAnguL/k1YJeh/RDz9QurzSYA3OBjnp5vI8\
R+KNN6uPNpLXtAQxOaeuLvU7DiiqNt1KMH3S6615i9/JHFpNqCRjBqrM7t0yqBg29NLyBmbt2adXl3crRZvBjShHjzOlTHvjE2MI\
3t2Svj/4l1mJT4MBpqXzZSK3+OqfNfGPnxJDqQKBgDHmKme58iP8jh5/OwNA3LGoGrcu+yGwNSWJP3L0jcgO52ZJ7+yIRf7m9Orn\
3bUQh0GxdCUzvKgpcQxaWQ0wB4JPRrmonDb1fAcokJMaOam/pCrg1TcIzW1S2cn9h2nkNKpL/Ox/NPwzElYH1sdQUUHxjTDDdLPk\
/Kgh0+WiZbRtAoGAO4G0DlCyXdKjDEXzduQFB19izTrFeXwo8aXTSXK/eI5vAQwGCQY7eXAvjQrv1VrF42LTne53eUhk8IOnDWGF\
6JWbyAUTbTz1GIp8Pq0bW888RP7w3cmPbwoEC1mKQNQvKomFfVy/BUWzc/YEIi/Xduiv0JD0L+zVvza+WfEV5DQ=";
pub(super) fn url_safe(bytes: &[u8]) -> String {
    base64::encode(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// What signs.
pub(super) enum Signer {
    Rsa(RsaKeyPair),
    Es(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_der(&base64::decode(RSA_KEY).unwrap()).unwrap())
    }

    pub(super) fn es() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Es(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap())
    }

    pub(super) fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                let (n, e) = (url_safe(&public.n), url_safe(&public.e));
                json!({"kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e})
            }
            Self::Es(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (url_safe(&point[1..33]), url_safe(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
            }
            Self::Ed(key) => {
                let x = url_safe(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x})
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding =
                    if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    pub(super) fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "typ": "JWT", "kid": kid}), claims)
    }

    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            url_safe(header.to_string().as_bytes()),
            url_safe(claims.to_string().as_bytes())
        );
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", url_safe(&signature))
    }
}

/// What the issuer answers.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) keys: Vec<Value>,
    pub(super) down: bool,
    /// How often its keys were asked for.
    pub(super) asked: usize,
}

/// An issuer of this process.
pub(super) struct StandIn {
    pub(super) url: String,
    pub(super) answers: Arc<Mutex<Answers>>,
}

impl StandIn {
    pub(super) async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(Answers { keys, ..Answers::default() }));
        let (own, held) = (url.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (own, held) = (own.clone(), Arc::clone(&held));
                tokio::spawn(async move {
                    let head = head(&mut stream).await;
                    let (status, body) = answer(&own, &head, &mut held.lock().unwrap());
                    let _gone = stream
                        .write_all(
                            format!(
                                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                                body.len()
                            )
                            .as_bytes(),
                        )
                        .await;
                });
            }
        });
        Self { url, answers }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    pub(super) fn asked(&self) -> usize {
        self.answers.lock().unwrap().asked
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn answer(own: &str, head: &str, answers: &mut Answers) -> (u16, String) {
    if answers.down {
        return (500, "{}".to_owned());
    }
    match head.split(' ').nth(1) {
        Some("/jwks") => {
            answers.asked += 1;
            (200, json!({"keys": answers.keys}).to_string())
        }
        Some("/.well-known/oauth-authorization-server") => {
            (200, json!({"issuer": own, "jwks_uri": format!("{own}/jwks")}).to_string())
        }
        _ => (404, "{}".to_owned()),
    }
}
