//! What whoever installs the cloud side can set, beside what the template creates.

use certrelay::{
    wire::{PrefixError, ThingName, Topics},
    x509::CommonNameRule,
};

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The topics' prefix; may hold `{thingName}`, which is the core's.
    pub prefix: String,
    /// Which names a CSR may bear.
    pub common_name: CommonNameRule,
    /// Whether what a core relays must be signed by the device's keys.
    pub require_proof: bool,
    /// How many rotations may begin a day.
    pub daily_budget: u32,
    /// After how many errors of a rotation a person is told.
    pub support_after: u32,
}

impl Settings {
    /// The topics of a core's devices.
    pub fn topics(&self, core: &ThingName) -> Result<Topics, PrefixError> {
        Topics::parse(&self.prefix, core)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "management/topic".to_owned(),
            common_name: CommonNameRule::default(),
            require_proof: false,
            daily_budget: 20_000,
            support_after: 3,
        }
    }
}
