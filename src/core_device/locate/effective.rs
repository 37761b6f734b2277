//! The classic nucleus' `effectiveConfig.yaml`, of which a few scalars are wanted.
//!
//! Follows the parser's events and keeps only the path to where it is. What comes before damage
//! counts; aliases are not followed, so no small file grows large.

use saphyr_parser::{Event, Parser};

use super::{System, some, tlog::WANTED};

/// Deeper than any configuration.
const MAX_DEPTH: usize = 64;

/// Reads what there is of a document.
pub(super) fn read(text: &str) -> System {
    let mut walk = Walk::default();
    for event in Parser::new_from_str(text) {
        let Ok((event, _)) = event else { break };
        if walk.depth.len() > MAX_DEPTH || matches!(event, Event::DocumentEnd) {
            break;
        }
        walk.step(event);
    }
    let [certificate, key, ca, host, port] = walk.found;
    System { certificate, key, ca, host, port }
}

/// Where the walk is: the maps and lists that are open, outermost first.
#[derive(Default)]
struct Walk {
    depth: Vec<Open>,
    found: [Option<String>; WANTED.len()],
}

enum Open {
    /// A map, and the key whose value is next.
    Map(Option<String>),
    List,
}

impl Walk {
    fn step(&mut self, event: Event<'_>) {
        match event {
            Event::MappingStart(..) => self.depth.push(Open::Map(None)),
            Event::SequenceStart(..) => self.depth.push(Open::List),
            Event::MappingEnd | Event::SequenceEnd => {
                self.depth.pop();
                self.end_value();
            }
            Event::Scalar(text, ..) => self.scalar(&text),
            Event::Alias(_) => self.scalar(""),
            _ => {}
        }
    }

    fn scalar(&mut self, text: &str) {
        match self.depth.last_mut() {
            Some(Open::Map(key @ None)) => *key = Some(text.to_owned()),
            _ => {
                self.value(text);
                self.end_value();
            }
        }
    }

    /// The value of a key is over; or a map or list was the key itself, which none is here.
    fn end_value(&mut self) {
        if let Some(Open::Map(key)) = self.depth.last_mut() {
            *key = if key.is_some() { None } else { Some(String::new()) };
        }
    }

    fn value(&mut self, text: &str) {
        for (found, wanted) in self.found.iter_mut().zip(WANTED) {
            let is_here = self.depth.len() == wanted.len()
                && self.depth.iter().zip(wanted).all(|(open, wanted)| {
                    matches!(open, Open::Map(Some(key)) if key.eq_ignore_ascii_case(wanted))
                });
            if is_here {
                *found = some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: &str = r#"---
services:
  aws.greengrass.Nucleus:
    componentType: "NUCLEUS"
    configuration:
      iotDataEndpoint: "abc-ats.iot.eu-west-1.amazonaws.com"
      mqtt:
        port: 443
        spooler: {}
      lists: [ {iotDataEndpoint: no}, [system] ]
    dependencies: []
  other:
    configuration:
      iotDataEndpoint: "not-this"
      system:
        certificateFilePath: "nor-this"
system:
  certificateFilePath: "file:///greengrass/v2/thingCert.crt"
  privateKeyPath: "/greengrass/v2/privKey.key"
  rootCaPath: "/greengrass/v2/rootCA.pem"
  thingName: "core"
"#;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_scalars_are_found_under_their_own_paths_alone() {
        let want = System {
            certificate: some("file:///greengrass/v2/thingCert.crt"),
            key: some("/greengrass/v2/privKey.key"),
            ca: some("/greengrass/v2/rootCA.pem"),
            host: some("abc-ats.iot.eu-west-1.amazonaws.com"),
            port: some("443"),
        };
        assert_eq!(read(CONFIG), want);
    }

    #[test]
    fn the_empty_values_of_a_core_that_a_fleet_provisioned_are_none() {
        let text = "system:\n  certificateFilePath: \"\"\n  privateKeyPath:\n  rootCaPath: ''\n";
        assert_eq!(read(text), System::default());
    }

    #[test]
    fn a_file_that_is_torn_gives_what_stands_before() {
        let torn = &CONFIG[..CONFIG.find("nor-this").expect("there")];
        let found = read(torn);
        assert_eq!(found.host, some("abc-ats.iot.eu-west-1.amazonaws.com"));
        assert_eq!(found.certificate, None);
    }

    #[test]
    fn aliases_and_depth_cost_nothing() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nsystem: {certificateFilePath: *a}\n";
        assert_eq!(read(bomb), System::default());
        assert_eq!(read(&"[".repeat(100_000)), System::default());
        assert_eq!(read(&"- ".repeat(10_000)), System::default());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", yaml in "[-:{}\\[\\],&*!|>'\"#%@` a-c\n]{0,200}") {
            let _ = (read(&text), read(&yaml));
        }
    }
}
