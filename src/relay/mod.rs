//! relay
mod record;
mod roster;
mod settings;
pub use record::*;
pub use roster::Children;
pub use settings::Settings;
