//! Why brokers do not let us in, or do not answer, read out of librdkafka's words: the error, with what to mend.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::KafkaConfig;
use crate::error::Error;

/// Whether an error says that the brokers do not let us in (password, certificate), so that waiting does not help.
pub fn is_refusal(code: Code, reason: &str) -> bool {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => true,
        // A handshake also breaks when a broker stops; only what is about certificates and versions stays as it is.
        Code::SSL => {
            let reason = reason.to_ascii_lowercase();
            ["certificate", "verify", "unknown ca", "wrong version number", "no shared cipher", "unsupported protocol"]
                .iter()
                .any(|sign| reason.contains(sign))
        }
        // For TLS 1.3 the handshake is over for us when the broker looks at our certificate.
        Code::BrokerTransportFailure => is_about_our_certificate(reason),
        _ => false,
    }
}

/// Whether a broker sent the alert that our certificate is missing, or not one that it takes.
fn is_about_our_certificate(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    reason.contains("alert") && ["certificate", "unknown ca"].iter().any(|sign| reason.contains(sign))
}

/// The error of brokers that do not let us in. `before`: whether they have done so, as of the same client. Then it is
/// they who changed, and a supervisor may try again.
pub(super) fn locked_out(config: &KafkaConfig, reason: &str, before: bool) -> Error {
    let text = format!(
        "Kafka at {} {} us in: {}. {}, then run it again",
        config.brokers(),
        if before { "no longer lets" } else { "does not let" },
        config.redact(reason),
        what_to_mend(config, reason)
    );
    if before { Error::unavailable(text) } else { Error::invalid(text) }
}

fn what_to_mend(config: &KafkaConfig, reason: &str) -> &'static str {
    let words = reason.to_ascii_lowercase();
    if words.contains("sasl state") {
        "The listener asks for no password: mend `kafka.security.protocol`"
    } else if words.contains("mechanism handshake failed") {
        "Mend `kafka.sasl.mechanism`: it has to be one of the broker's"
    } else if is_about_our_certificate(reason) && config.has_certificate() {
        "It does not take our certificate: mend `kafka.ssl.certificate.location` and `kafka.ssl.key.location` (or \
         `kafka.ssl.keystore.location`), or add the CA that signed it to those that the broker trusts"
    } else if is_about_our_certificate(reason) {
        "It asks for a client certificate and there is none: name one with `kafka.ssl.certificate.location` and \
         `kafka.ssl.key.location` (or `kafka.ssl.keystore.location`)"
    } else if words.contains("certificate") || words.contains("verify") {
        "Mend `kafka.ssl.ca.location`: a PEM file with the CA that signed the broker's certificate, which has to be \
         valid today and for the host that LOCATION names"
    } else if words.contains("ssl") && !words.contains("sasl") {
        "Mend `kafka.security.protocol`, or the versions and ciphers of TLS that the broker takes"
    } else {
        "The user or the password is wrong: mend `kafka.sasl.username` and `kafka.sasl.password`"
    }
}

/// The error of brokers that stayed away longer than `limit`.
pub(super) fn gave_up(config: &KafkaConfig, reason: &str, limit: Duration) -> Error {
    let remedy = match speaks_otherwise(reason) {
        true => {
            "somebody is there and ends the connection. Mend `kafka.security.protocol` so that it is the listener's \
             (PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL), or look at the broker's log; then run it again"
        }
        false => "start the broker and run it again, or raise flumen.broker_timeout",
    };
    let reason = config.redact(reason);
    Error::unavailable(format!("Kafka at {} stayed away for {limit:?} ({reason}): {remedy}", config.brokers()))
}

/// Why the brokers are away, for the log.
pub(super) fn in_words(config: &KafkaConfig, reason: &str) -> String {
    let hint = if speaks_otherwise(reason) { "; is `kafka.security.protocol` the listener's?" } else { "" };
    format!("{}{hint}", config.redact(reason))
}

/// Whether a connection was made and then broke before the first answer, as one to a listener of another protocol does.
/// One that asks for a password breaks it a moment later.
fn speaks_otherwise(reason: &str) -> bool {
    let up = reason.split_once("(after ").and_then(|(_, rest)| rest.split_once("ms in state UP"));
    let soon = up.and_then(|(millis, _)| millis.parse::<u64>().ok()).is_some_and(|millis| millis < 1000);
    soon || ["in state APIVERSION_QUERY", "in state SSL_HANDSHAKE"].iter().any(|state| reason.contains(state))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::error::ErrorKind;

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        let properties: BTreeMap<_, _> = properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        KafkaConfig::new("b:1", &properties).unwrap()
    }

    #[test]
    fn refusals_are_told_from_failures() {
        assert!(is_refusal(Code::Authentication, "SASL authentication error"));
        assert!(is_refusal(Code::SSL, "SSL handshake failed: ... certificate verify failed"));
        assert!(!is_refusal(Code::SSL, "SSL handshake failed: Disconnected"));
        assert!(!is_refusal(Code::BrokerTransportFailure, "Connection refused"));
        assert!(is_refusal(Code::BrokerTransportFailure, "ssl/tls alert bad certificate: SSL alert number 42"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let alert = "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42";
        let cases = [
            ("SASL authentication error: Invalid username or password", "`kafka.sasl.password`"),
            (
                "SASL PLAIN mechanism handshake failed: Unsupported SASL mechanism: SCRAM-SHA-512",
                "`kafka.sasl.mechanism`",
            ),
            ("SASL PLAIN mechanism handshake failed: Request not valid in current SASL state", "asks for no password"),
            ("SSL handshake failed: certificate verify failed", "`kafka.ssl.ca.location`"),
            ("SSL handshake failed: wrong version number", "`kafka.security.protocol`"),
            (alert, "there is none"),
        ];
        for (reason, told) in cases {
            let error = locked_out(&config(&[]), reason, false);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let message = error.to_string();
            assert!(message.starts_with("Kafka at b:1 does not let us in: ") && message.contains(told), "{message}");
        }
        let error = locked_out(&config(&[("ssl.certificate.location", "c.pem")]), alert, true);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        assert!(message.contains("no longer lets") && message.contains("does not take our certificate"), "{message}");
    }

    #[test]
    fn a_listener_that_hangs_up_is_told_from_one_that_is_not_there() {
        let limit = Duration::from_secs(1);
        let told = |reason: &str| gave_up(&config(&[]), reason, limit).to_string();
        for reason in
            ["after 0ms in state APIVERSION_QUERY", "after 3ms in state SSL_HANDSHAKE", "after 1ms in state UP"]
        {
            assert!(told(&format!("Disconnected ({reason})")).contains("`kafka.security.protocol`"), "{reason}");
        }
        for reason in ["after 0ms in state CONNECT", "after 5000ms in state UP"] {
            assert!(told(&format!("Connection refused ({reason})")).contains("start the broker"), "{reason}");
        }
    }
}
