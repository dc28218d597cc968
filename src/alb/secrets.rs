//! Values of `${secretsmanager:…}` and `${ssm:…}`: two requests of two services, signed and sent by
//! hand.
//!
//! The SDK crates of these services are hundreds of thousands of generated lines for one call each;
//! signing is [`aws_sigv4`], which the SDK uses too, and the rest is one small JSON document.
//!
//! Must never put a value into an error, a log or a `Debug`.

use crate::alb::errors::kind_of_code;
use crate::alb::trouble;
use crate::world::{ErrorKind, WorldError};
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// For one try of one request, with its body.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of one request.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second try; doubles.
const RETRY_WAIT: Duration = Duration::from_millis(300);
/// Longest answer: a secret has at most 64 KiB, escaped in JSON.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// Requests under way at once.
const PARALLEL_MAX: usize = 4;
/// Requests of one fetch; a configuration that needs more is refused for the rest.
const REFS_MAX: usize = 500;

/// Which secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretRef {
    /// A secret of Secrets Manager, by name or ARN; its value is the whole secret string.
    SecretsManager(String),
    /// A parameter of the Systems Manager's parameter store, by name or ARN, decrypted.
    Ssm(String),
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SecretsManager(id) => write!(f, "secret {id}"),
            Self::Ssm(name) => write!(f, "parameter {name}"),
        }
    }
}

impl SecretRef {
    const fn service(&self) -> &'static str {
        match self {
            Self::SecretsManager(_) => "secretsmanager",
            Self::Ssm(_) => "ssm",
        }
    }

    const fn target(&self) -> &'static str {
        match self {
            Self::SecretsManager(_) => "secretsmanager.GetSecretValue",
            Self::Ssm(_) => "AmazonSSM.GetParameter",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::SecretsManager(name) | Self::Ssm(name) => name,
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::SecretsManager(id) => json!({ "SecretId": id }),
            Self::Ssm(name) => json!({ "Name": name, "WithDecryption": true }),
        }
    }

    /// The value in an answer.
    fn value(&self, answer: &Value) -> Option<String> {
        let value = match self {
            Self::SecretsManager(_) => answer.get("SecretString"),
            Self::Ssm(_) => answer.get("Parameter").and_then(|parameter| parameter.get("Value")),
        };
        value.and_then(Value::as_str).map(str::to_owned)
    }

    /// The region in an ARN, else `default`.
    fn region<'a>(&'a self, default: &'a str) -> &'a str {
        let arn = self.name().strip_prefix("arn:");
        arn.and_then(|rest| rest.split(':').nth(2)).filter(|region| !region.is_empty()).unwrap_or(default)
    }
}

/// Fetches every value that `refs` names, each with its own result. `endpoint` stands in for the
/// services' own addresses in tests.
pub async fn fetch(
    sdk: &SdkConfig,
    endpoint: Option<&str>,
    refs: &BTreeSet<SecretRef>,
) -> BTreeMap<SecretRef, Result<String, WorldError>> {
    if refs.is_empty() {
        return BTreeMap::new();
    }
    let sender = match Sender::new(sdk, endpoint).await {
        Ok(sender) => sender,
        Err(error) => return refs.iter().map(|one| (one.clone(), Err(error.clone()))).collect(),
    };
    let sender = Arc::new(sender);
    // Owned and boxed: a future that borrows from a stream's items is not known to be `Send`.
    let fetches: Vec<Fetch> = refs
        .iter()
        .enumerate()
        .map(|(n, one)| -> Fetch {
            let (sender, one) = (Arc::clone(&sender), one.clone());
            Box::pin(async move {
                let result = if n < REFS_MAX {
                    sender.get(&one).await
                } else {
                    let cause = format!("more than {REFS_MAX} references");
                    Err(trouble(format!("fetching {one}"), ErrorKind::Quota, cause))
                };
                (one, result)
            })
        })
        .collect();
    futures_util::stream::iter(fetches).buffer_unordered(PARALLEL_MAX).collect().await
}

/// One fetch.
type Fetch = Pin<Box<dyn Future<Output = (SecretRef, Result<String, WorldError>)> + Send>>;

/// Who signs and sends.
struct Sender {
    credentials: Credentials,
    region: String,
    endpoint: Option<String>,
    connector: Connector,
}

impl Sender {
    async fn new(sdk: &SdkConfig, endpoint: Option<&str>) -> Result<Self, WorldError> {
        let doing = "fetching secrets from AWS";
        let region = sdk.region().ok_or_else(|| trouble(doing, ErrorKind::Invalid, "no region is set"))?;
        let provider = sdk.credentials_provider();
        let provider =
            provider.ok_or_else(|| trouble(doing, ErrorKind::Denied, "there are no credentials"))?;
        let credentials = tokio::time::timeout(ATTEMPT_TIMEOUT, provider.provide_credentials()).await;
        let credentials = credentials
            .map_err(|late| trouble(doing, ErrorKind::TimedOut, late.to_string()))?
            .map_err(|error| trouble(doing, ErrorKind::Denied, error.to_string()))?;
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
        Ok(Self { credentials, region: region.to_string(), endpoint: endpoint.map(str::to_owned), connector })
    }

    /// One value, tried again where that may help.
    async fn get(&self, one: &SecretRef) -> Result<String, WorldError> {
        let mut wait = RETRY_WAIT;
        let mut attempt = 1;
        loop {
            let result = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.try_once(one)).await {
                Ok(result) => result,
                Err(_) => Err(trouble(format!("fetching {one}"), ErrorKind::TimedOut, "no answer in time")),
            };
            let may_help = |kind| {
                matches!(
                    kind,
                    ErrorKind::Throttled | ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Failed
                )
            };
            match result {
                Err(error) if may_help(error.kind) && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result,
            }
        }
    }

    async fn try_once(&self, one: &SecretRef) -> Result<String, WorldError> {
        let doing = format!("fetching {one}");
        let request = self.signed(one).map_err(|cause| trouble(&doing, ErrorKind::Invalid, cause))?;
        let unreachable = |cause: String| trouble(&doing, ErrorKind::Unreachable, cause);
        let response = self.connector.call(request).await.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status().as_u16();
        let mut body = ByteStream::new(response.into_body());
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| unreachable(error.to_string()))?);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(trouble(doing, ErrorKind::Failed, "the answer is too long"));
            }
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status != 200 {
            return Err(refusal(&doing, status, &answer));
        }
        // The parser's own words would quote the value.
        one.value(&answer).ok_or_else(|| trouble(doing, ErrorKind::Failed, "the answer has no text value"))
    }

    fn signed(&self, one: &SecretRef) -> Result<HttpRequest, String> {
        let region = one.region(&self.region);
        let (service, body) = (one.service(), one.body().to_string());
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = self.endpoint.clone().unwrap_or_else(|| format!("https://{service}.{region}.{suffix}"));
        let url = format!("{}/", url.trim_end_matches('/'));
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", one.target())];
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let signable =
            SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()));
        let signable = signable.map_err(|error| error.to_string())?;
        let (instructions, _) = sign(signable, &params).map_err(|error| error.to_string())?.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").map_err(|error| error.to_string())?;
        request.set_uri(url).map_err(|error| error.to_string())?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(request)
    }
}

/// An answer that is an error: `__type` may be a URI whose part after `#` is the code.
fn refusal(doing: &str, status: u16, answer: &Value) -> WorldError {
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    let code = text("__type").map_or("", |code| code.rsplit('#').next().unwrap_or(code));
    if code.is_empty() {
        return trouble(
            doing,
            kind_of_code("", status),
            format!("an answer of status {status} without a code"),
        );
    }
    let message = if code.contains("Signature") { None } else { text("message").or_else(|| text("Message")) };
    let cause = message.map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"));
    trouble(doing, kind_of_code(code, status), cause)
}

#[cfg(test)]
mod tests {
    use super::{SecretRef, fetch};
    use crate::world::ErrorKind;
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use std::collections::BTreeSet;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Answers like both services; the first request of all is throttled.
    async fn stub() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut first = true;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                let mut buffer = [0; 4096];
                while !request.contains('}') {
                    let n = stream.read(&mut buffer).await.unwrap();
                    request.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
                }
                let signed =
                    request.contains("AWS4-HMAC-SHA256 Credential=AKID/") && request.contains("x-amz-date");
                let (status, body) = match () {
                    () if !signed => {
                        (403, r#"{"__type":"InvalidSignatureException","message":"token s3cret"}"#)
                    }
                    () if std::mem::take(&mut first) => (400, r#"{"__type":"ThrottlingException"}"#),
                    () if request.contains("\"gone\"") => {
                        (400, r#"{"__type":"x#ResourceNotFoundException","Message":"no"}"#)
                    }
                    () if request.contains("GetSecretValue") => (200, r#"{"SecretString":"{\"k\":\"v\"}"}"#),
                    () => (200, r#"{"Parameter":{"Value":"p"}}"#),
                };
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(body.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn values_are_fetched_each_with_its_own_result() {
        let url = stub().await;
        let credentials = Credentials::new("AKID", "s3cret", Some("t0ken".into()), None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let secret = SecretRef::SecretsManager("a".into());
        let (gone, parameter) = (SecretRef::SecretsManager("gone".into()), SecretRef::Ssm("/p".into()));
        let refs = BTreeSet::from([secret.clone(), gone.clone(), parameter.clone()]);
        let got = fetch(&sdk, Some(&url), &refs).await;
        assert_eq!(got[&secret].as_deref(), Ok(r#"{"k":"v"}"#));
        assert_eq!(got[&parameter].as_deref(), Ok("p"));
        let error = got[&gone].clone().unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(error.to_string(), "fetching secret gone: ResourceNotFoundException: no");
        assert!(!format!("{got:?}").contains("s3cret"));
        let nowhere = fetch(&sdk, Some("http://127.0.0.1:1"), &BTreeSet::from([secret.clone()])).await;
        assert_eq!(nowhere[&secret].clone().unwrap_err().kind, ErrorKind::Unreachable);
    }

    #[test]
    fn an_arn_names_its_region() {
        let arn = SecretRef::SecretsManager("arn:aws:secretsmanager:us-east-2:1:secret:x".into());
        assert_eq!(arn.region("eu-west-1"), "us-east-2");
        assert_eq!(SecretRef::Ssm("/a".into()).region("eu-west-1"), "eu-west-1");
    }
}
