//! Whom we serve: the globs of `children`.

use wildmatch::WildMatch;

use crate::wire::ThingName;

/// The devices that this gateway serves. A literal name puts a device on the roster at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    globs: Vec<WildMatch>,
    names: Vec<ThingName>,
}

impl Children {
    /// From the setting: names, or globs with `*` and `?`.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns: Vec<&str> = patterns.into_iter().collect();
        Self {
            globs: patterns.iter().map(|pattern| WildMatch::new(pattern)).collect(),
            names: patterns.iter().filter_map(|pattern| pattern.parse().ok()).collect(),
        }
    }

    /// Whether the gateway may serve the device.
    pub fn serves(&self, name: &ThingName) -> bool {
        self.globs.iter().any(|glob| glob.matches(name.as_str()))
    }

    /// Whether the device is named, rather than matched.
    pub fn names(&self, name: &ThingName) -> bool {
        self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_serves_what_it_matches_and_only_a_literal_name_is_on_the_roster() {
        let children = Children::new(["pump-*", "valve-?", "press"]);
        let name = |text: &str| text.parse::<ThingName>().expect("valid");
        assert!(children.serves(&name("pump-")) && children.serves(&name("pump-12")));
        assert!(children.serves(&name("valve-1")) && !children.serves(&name("valve-12")));
        assert!(children.names(&name("press")) && !children.names(&name("pump-12")));
        assert!(!children.serves(&name("xpump-1")));
    }
}
