//! The environment variables of the functions; the template sets them.
//!
//! | variable | what | default |
//! |---|---|---|
//! | `AWS_REGION` | the region; Lambda sets it | – |
//! | `CERTRELAY_ACCOUNT`, `CERTRELAY_PARTITION` | whose ARNs certificates have | –, `aws` |
//! | `CERTRELAY_TABLE` | the table of the records | – |
//! | `CERTRELAY_QUEUE_AUDIT`, `…_ROTATE`, `…_DUE` | URLs of queues | – |
//! | `CERTRELAY_SUPPORT_TOPIC` | ARN of the support team's topic | – |
//! | `CERTRELAY_TOPIC_PREFIX` | prefix of the devices' topics | `management/topic` |
//! | `CERTRELAY_COMMON_NAME` | `match`, `absent-ok` or `any` | `absent-ok` |
//! | `CERTRELAY_REQUIRE_PROOF` | whether relayed messages must be signed | `false` |
//! | `CERTRELAY_DAILY_BUDGET` | how many rotations may begin a day | `20000` |
//! | `CERTRELAY_SUPPORT_AFTER` | after how many errors a person is told | `3` |
//! | `CERTRELAY_ASSOCIATION` | `greengrass`, `attribute:<name>` or `table:<name>` | `greengrass` |
//! | `CERTRELAY_ISSUER` | `aws-iot`, or the ARN of a private CA | `aws-iot` |
//! | `CERTRELAY_PCA_VALIDITY_DAYS` | how long the private CA's certificates are valid | `365` |
//! | `CERTRELAY_PCA_SIGNING_ALGORITHM` | the algorithm of the private CA's key | `SHA256WITHECDSA` |
//! | `CERTRELAY_TPS` | calls a second of each AWS IoT API, an instance | `1` |

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use certrelay::{wire::ThingName, x509::CommonNameRule};

use crate::settings::Settings;

/// Where things are, and how fast they may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The partition of ARNs.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The account.
    pub account: String,
    /// The table of the records.
    pub table: String,
    /// URLs of the queues: audit, rotate, due.
    pub queues: [String; 3],
    /// ARN of the support team's topic.
    pub support_topic: String,
    /// What says which devices a core has.
    pub associations: Associations,
    /// Who signs.
    pub issuer: Issuer,
    /// The time between two calls of one AWS IoT API.
    pub pace: Duration,
    /// What the functions go by.
    pub settings: Settings,
}

/// What says which devices a core has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Associations {
    /// Greengrass: the client devices associated with a core device.
    Greengrass,
    /// An attribute of the device's thing: the core's thing name.
    Attribute(String),
    /// A table: key `device`, attribute `core`.
    Table(String),
}

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// AWS IoT itself: valid until 2049.
    AwsIot,
    /// AWS Private CA.
    PrivateCa {
        /// Its ARN.
        arn: String,
        /// How long its certificates are valid.
        days: NonZeroU32,
        /// The algorithm of its key.
        algorithm: String,
    },
}

/// What is wrong with a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is needed and not there.
    #[error("{0} is not set; the template sets it: deploy the stack again, or export it")]
    Missing(&'static str),
    /// Nobody could tell which core's topics a device is to be asked on.
    #[error(
        "CERTRELAY_TOPIC_PREFIX is {0:?}, but with CERTRELAY_ASSOCIATION greengrass the core of a device \
         is not known before the device has spoken; choose attribute:NAME or table:NAME, or a prefix \
         without {{thingName}}"
    )]
    Coreless(String),
    /// It can't be read.
    #[error("{name} is {value:?}, which is not {wanted}; change the stack's parameter")]
    Bad {
        /// Which.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

impl Config {
    /// Reads it; `get` gives a variable.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let reader = Reader { get };
        let config = Self {
            partition: reader.or("CERTRELAY_PARTITION", "aws"),
            region: reader.needed("AWS_REGION")?,
            account: reader.needed("CERTRELAY_ACCOUNT")?,
            table: reader.needed("CERTRELAY_TABLE")?,
            queues: [
                reader.needed("CERTRELAY_QUEUE_AUDIT")?,
                reader.needed("CERTRELAY_QUEUE_ROTATE")?,
                reader.needed("CERTRELAY_QUEUE_DUE")?,
            ],
            support_topic: reader.needed("CERTRELAY_SUPPORT_TOPIC")?,
            associations: reader.associations()?,
            issuer: reader.issuer()?,
            pace: reader.pace()?,
            settings: reader.settings()?,
        };
        match config.associations {
            Associations::Greengrass if config.settings.prefix.contains("{thingName}") => {
                Err(ConfigError::Coreless(config.settings.prefix))
            }
            _ => Ok(config),
        }
    }
}

struct Reader<G> {
    get: G,
}

impl<G: Fn(&str) -> Option<String>> Reader<G> {
    fn needed(&self, name: &'static str) -> Result<String, ConfigError> {
        (self.get)(name).filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name))
    }

    fn or(&self, name: &'static str, default: &str) -> String {
        self.needed(name).unwrap_or_else(|_| default.to_owned())
    }

    fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        default: &str,
        wanted: &'static str,
    ) -> Result<T, ConfigError> {
        let value = self.or(name, default);
        value.parse().map_err(|_| ConfigError::Bad { name, value, wanted })
    }

    fn pace(&self) -> Result<Duration, ConfigError> {
        const NAME: &str = "CERTRELAY_TPS";
        let value = self.or(NAME, "1");
        let pace = value.parse().ok().filter(|tps: &f64| *tps >= 0.01);
        let pace = pace.and_then(|tps| Duration::try_from_secs_f64(tps.recip()).ok());
        pace.ok_or(ConfigError::Bad { name: NAME, value, wanted: "a number of 0.01 or more" })
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let settings = Settings {
            prefix: self.prefix()?,
            common_name: self.common_name()?,
            require_proof: self.parsed("CERTRELAY_REQUIRE_PROOF", "false", "true or false")?,
            daily_budget: self.parsed("CERTRELAY_DAILY_BUDGET", "20000", "a number")?,
            support_after: self.parsed("CERTRELAY_SUPPORT_AFTER", "3", "a number")?,
        };
        Ok(settings)
    }

    fn prefix(&self) -> Result<String, ConfigError> {
        const NAME: &str = "CERTRELAY_TOPIC_PREFIX";
        let settings =
            Settings { prefix: self.or(NAME, "management/topic"), ..Settings::default() };
        let longest: ThingName = "core".parse().map_err(|_| ConfigError::Missing(NAME))?;
        match settings.topics(&longest) {
            Ok(_) => Ok(settings.prefix),
            Err(_) => {
                let wanted = "a prefix of topics, of at most 7 levels with the two after it";
                Err(ConfigError::Bad { name: NAME, value: settings.prefix, wanted })
            }
        }
    }

    fn common_name(&self) -> Result<CommonNameRule, ConfigError> {
        const NAME: &str = "CERTRELAY_COMMON_NAME";
        let value = self.or(NAME, "absent-ok");
        match value.as_str() {
            "match" => Ok(CommonNameRule::Match),
            "absent-ok" => Ok(CommonNameRule::AbsentOk),
            "any" => Ok(CommonNameRule::Any),
            _ => Err(ConfigError::Bad { name: NAME, value, wanted: "match, absent-ok or any" }),
        }
    }

    fn associations(&self) -> Result<Associations, ConfigError> {
        const NAME: &str = "CERTRELAY_ASSOCIATION";
        let value = self.or(NAME, "greengrass");
        match value.split_once(':') {
            None if value == "greengrass" => Ok(Associations::Greengrass),
            Some(("attribute", name)) if !name.is_empty() => {
                Ok(Associations::Attribute(name.to_owned()))
            }
            Some(("table", name)) if !name.is_empty() => Ok(Associations::Table(name.to_owned())),
            _ => {
                let wanted = "greengrass, attribute:<name> or table:<name>";
                Err(ConfigError::Bad { name: NAME, value, wanted })
            }
        }
    }

    fn issuer(&self) -> Result<Issuer, ConfigError> {
        const NAME: &str = "CERTRELAY_ISSUER";
        let value = self.or(NAME, "aws-iot");
        match value.as_str() {
            "aws-iot" => Ok(Issuer::AwsIot),
            arn if arn.starts_with("arn:") && arn.contains(":acm-pca:") => Ok(Issuer::PrivateCa {
                arn: value,
                days: self.parsed("CERTRELAY_PCA_VALIDITY_DAYS", "365", "a number of days")?,
                algorithm: self.or("CERTRELAY_PCA_SIGNING_ALGORITHM", "SHA256WITHECDSA"),
            }),
            _ => {
                let wanted = "aws-iot or the ARN of a private CA";
                Err(ConfigError::Bad { name: NAME, value, wanted })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: [&str; 7] = [
        "AWS_REGION",
        "CERTRELAY_ACCOUNT",
        "CERTRELAY_TABLE",
        "CERTRELAY_QUEUE_AUDIT",
        "CERTRELAY_QUEUE_ROTATE",
        "CERTRELAY_QUEUE_DUE",
        "CERTRELAY_SUPPORT_TOPIC",
    ];

    fn read(changed: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(|name| {
            let set = changed.iter().find(|(other, _)| *other == name);
            let needed = NEEDED.contains(&name).then_some("value");
            set.map(|(_, value)| *value).or(needed).map(str::to_owned)
        })
    }

    #[test]
    fn the_defaults_are_the_settings_own() {
        let config = read(&[]).expect("readable");
        assert_eq!(config.settings, Settings::default());
        assert_eq!(
            (config.associations, config.issuer),
            (Associations::Greengrass, Issuer::AwsIot)
        );
    }

    #[test]
    fn a_prefix_with_the_cores_name_needs_a_source_that_tells_the_core_of_a_device() {
        const PREFIX: (&str, &str) = ("CERTRELAY_TOPIC_PREFIX", "management/core/{thingName}");
        let error = read(&[PREFIX]).expect_err("nobody knows the core").to_string();
        assert!(error.contains("{thingName}") && error.contains("attribute:NAME"), "{error}");
        for association in ["attribute:core", "table:cores"] {
            assert!(read(&[PREFIX, ("CERTRELAY_ASSOCIATION", association)]).is_ok());
        }
    }

    #[test]
    fn a_variable_that_is_missing_or_wrong_is_named_with_what_it_should_be() {
        for name in NEEDED {
            assert_eq!(read(&[(name, "")]), Err(ConfigError::Missing(name)));
        }
        for (name, value) in [
            ("CERTRELAY_TPS", "0"),
            ("CERTRELAY_REQUIRE_PROOF", "yes"),
            ("CERTRELAY_COMMON_NAME", "MATCH"),
            ("CERTRELAY_ASSOCIATION", "attribute:"),
            ("CERTRELAY_ISSUER", "arn:aws:iam::1:role/x"),
            ("CERTRELAY_TOPIC_PREFIX", "a/b/c/d/e/f/g/h"),
            ("CERTRELAY_TOPIC_PREFIX", "a/+/c"),
        ] {
            let error = read(&[(name, value)]).expect_err("wrong").to_string();
            assert!(error.starts_with(&format!("{name} is {value:?}, which is not ")), "{error}");
        }
    }
}
