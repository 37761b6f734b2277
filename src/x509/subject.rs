//! Whose name a CSR or certificate bears.
//!
//! Brokers take the CN, some the SAN, for a client's identity; so whatever is present must be the
//! client id. Never normalises: a name in another case or string type is another name.

use x509_parser::{
    extensions::{GeneralName, SubjectAlternativeName},
    x509::{AttributeTypeAndValue, X509Name},
};

use super::{CommonNameRule, Refusal};
use crate::{reason::Reason, wire::ThingName};

/// The CN of certificates that AWS IoT signs itself. It names nobody, and can be no thing name.
const AWS_COMMON_NAME: &str = "AWS IoT Certificate";

/// Where the names stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    /// A CSR: what the device asks for.
    Csr,
    /// A certificate. [`AWS_COMMON_NAME`] counts as no CN at all.
    Certificate,
}

/// Applies the rule to every CN and every alternative name.
pub(super) fn accept_subject(
    bearer: Bearer,
    subject: &X509Name<'_>,
    alternatives: &[&SubjectAlternativeName<'_>],
    client: &ThingName,
    rule: CommonNameRule,
) -> Result<(), Refusal> {
    if rule == CommonNameRule::Any {
        return Ok(());
    }
    let mut names = subject.iter_common_name().filter(|name| !is_nobody(bearer, name)).peekable();
    let named = names.peek().is_some();
    let ours = names.all(|name| name.as_str().is_ok_and(|name| name == client.as_str()))
        && alternatives.iter().flat_map(|list| &list.general_names).all(|name| is(name, client));
    if ours && (named || rule == CommonNameRule::AbsentOk) {
        Ok(())
    } else {
        Err(Refusal(Reason::WrongSubject))
    }
}

fn is_nobody(bearer: Bearer, name: &AttributeTypeAndValue<'_>) -> bool {
    bearer == Bearer::Certificate && name.as_str().is_ok_and(|name| name == AWS_COMMON_NAME)
}

fn is(name: &GeneralName<'_>, client: &ThingName) -> bool {
    matches!(name, GeneralName::DNSName(name) if *name == client.as_str())
}
