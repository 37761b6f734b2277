//! A path as a nucleus' configuration spells it: plain, or as a `file:` URI.

use std::path::PathBuf;

use super::{REMEDY, unknown};
use crate::{identity::Failure, reason::Reason, wire::escape};

/// Reads a path; only an absolute one says which file it is.
pub(super) fn parse(text: &str) -> Result<PathBuf, Failure> {
    if after_scheme(text, "pkcs11:").is_some() {
        // What follows is not told: it may hold a PIN.
        return Err(hardware());
    }
    let path = match after_scheme(text, "file:") {
        Some(rest) => of_uri(rest),
        None => Some(text.to_owned()),
    };
    let is_path = |path: &String| path.starts_with('/') && !path.contains('\0');
    path.filter(is_path).map(PathBuf::from).ok_or_else(|| {
        unknown(format!(
            "the nucleus names {:?}, which is no absolute path; {REMEDY}",
            escape(text)
        ))
    })
}

fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let begin = text.get(..scheme.len())?;
    begin.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
}

fn hardware() -> Failure {
    Failure {
        reason: Reason::HardwareKey,
        detail: "the nucleus takes its credential from a hardware module (pkcs11:), where \
                 certrelay can't rotate it yet: rotate it by the module's own tools"
            .to_owned(),
    }
}

/// `/path`, `///path` and `//localhost/path`, percent-decoded.
fn of_uri(rest: &str) -> Option<String> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let (host, _) = rest.split_at(rest.find('/')?);
            let is_here = host.is_empty() || host.eq_ignore_ascii_case("localhost");
            is_here.then(|| &rest[host.len()..])?
        }
    };
    decoded(path)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> Reason {
        parse(text).expect_err("no path").reason
    }

    #[test]
    fn plain_paths_and_file_uris_name_the_same_file() {
        let want = PathBuf::from("/greengrass/v2/thing cert.crt");
        for text in [
            "/greengrass/v2/thing cert.crt",
            "file:///greengrass/v2/thing%20cert.crt",
            "file:/greengrass/v2/thing%20cert.crt",
            "FILE://localhost/greengrass/v2/thing%20cert.crt",
        ] {
            assert_eq!(parse(text), Ok(want.clone()), "{text}");
        }
    }

    #[test]
    fn a_percent_sign_in_a_plain_path_is_a_percent_sign() {
        assert_eq!(parse("/a%20b"), Ok(PathBuf::from("/a%20b")));
    }

    #[test]
    fn a_key_in_hardware_is_told_apart_and_its_pin_is_not_told() {
        let uri = "pkcs11:object=iotkey;type=private?pin-value=1234";
        let failure = parse(uri).expect_err("hardware");
        assert_eq!(failure.reason, Reason::HardwareKey);
        assert!(!failure.detail.contains("1234"));
        assert_eq!(reason("PKCS11:object=iotkey"), Reason::HardwareKey);
    }

    #[test]
    fn what_is_no_absolute_path_here_is_refused_with_the_remedy() {
        for text in [
            "cert.pem",
            "./a",
            "file://host/a",
            "file:a",
            "file:///%zz",
            "file:///%0",
            "",
            "file:///%00",
        ] {
            let failure = parse(text).expect_err(text);
            assert_eq!(failure.reason, Reason::CredentialUnknown);
            assert!(failure.detail.contains("core.certificateFile"), "{failure}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_path_is_absolute(text in "(file:|file://|/|pkcs11:)?\\PC{0,40}") {
            if let Ok(path) = parse(&text) {
                prop_assert!(path.is_absolute());
            }
        }
    }
}
