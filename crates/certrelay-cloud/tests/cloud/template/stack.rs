//! The template with values for its parameters: functions worked out, conditions decided.
//!
//! A resource's `Ref` is its name, an attribute is `Name.Attribute`, and what AWS would fill in is in
//! capitals. Panics on functions that the template has no business with.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::yaml;

/// The template, as it stands.
pub const TEMPLATE: &str = include_str!("../../../template.yaml");

/// What would be deployed.
pub struct Stack {
    /// The resources that there are, by name.
    pub resources: BTreeMap<String, Value>,
}

impl Stack {
    /// With the defaults of all parameters but these.
    pub fn with(chosen: &[(&str, &str)]) -> Self {
        let template = yaml::read(TEMPLATE);
        let mut parameters: BTreeMap<_, _> = entries(&template["Parameters"])
            .map(|(name, parameter)| (name.to_owned(), text(&parameter["Default"]).to_owned()))
            .collect();
        for (name, value) in chosen {
            let old = parameters.insert((*name).to_owned(), (*value).to_owned());
            assert!(old.is_some(), "no parameter {name}");
        }
        let scope = Scope { parameters, template: &template };
        let resources = entries(&template["Resources"])
            .filter(|(_, resource)| {
                resource.get("Condition").is_none_or(|name| scope.holds(text(name)))
            })
            .map(|(name, resource)| (name.to_owned(), scope.resolved(resource).expect("a value")))
            .collect();
        let mut stack = Self { resources };
        stack.apply(&scope.resolved(&template["Globals"]["Function"]).expect("a value"));
        stack
    }

    /// With all defaults.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The properties of the resources of a type, by name.
    pub fn all<'a>(&'a self, of: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.resources
            .iter()
            .filter(move |(_, resource)| resource["Type"] == of)
            .map(|(name, resource)| (name.as_str(), &resource["Properties"]))
    }

    /// The properties of a resource.
    pub fn get(&self, name: &str) -> &Value {
        &self.resources.get(name).unwrap_or_else(|| panic!("no {name}"))["Properties"]
    }

    /// Gives the functions what is said of all.
    fn apply(&mut self, globals: &Value) {
        for resource in self.resources.values_mut() {
            if resource["Type"] == "AWS::Serverless::Function" {
                let own = resource["Properties"].take();
                resource["Properties"] = merged(globals.clone(), own);
            }
        }
    }
}

struct Scope<'a> {
    parameters: BTreeMap<String, String>,
    template: &'a Value,
}

impl Scope<'_> {
    /// The value, or nothing for `AWS::NoValue`.
    fn resolved(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Array(items) => {
                Some(items.iter().filter_map(|item| self.resolved(item)).collect())
            }
            Value::Object(pairs) => match function(pairs) {
                Some((name, argument)) => self.called(name, argument),
                None => Some(Value::Object(
                    pairs
                        .iter()
                        .filter_map(|(key, value)| Some((key.clone(), self.resolved(value)?)))
                        .collect(),
                )),
            },
            other => Some(other.clone()),
        }
    }

    fn called(&self, name: &str, argument: &Value) -> Option<Value> {
        Some(match (name, argument) {
            ("Ref", Value::String(name)) if name == "AWS::NoValue" => return None,
            ("Ref", Value::String(name)) => self.named(name).into(),
            ("Fn::GetAtt", Value::String(name)) => name.as_str().into(),
            ("Fn::Sub", Value::String(pattern)) => self.filled(pattern, &Map::new()).into(),
            ("Fn::Sub", Value::Array(both)) => {
                let own = self.resolved(&both[1])?;
                self.filled(text(&both[0]), own.as_object().expect("variables")).into()
            }
            ("Fn::Join", Value::Array(both)) => {
                let parts = self.resolved(&both[1])?;
                texts(&parts).join(text(&both[0])).into()
            }
            ("Fn::Split", Value::Array(both)) => {
                let whole = self.resolved(&both[1])?;
                text(&whole).split(text(&both[0])).collect()
            }
            ("Fn::Select", Value::Array(both)) => {
                let list = self.resolved(&both[1])?;
                let index: usize = text(&both[0]).parse().expect("an index");
                list.get(index).unwrap_or_else(|| panic!("no {index} in {list}")).clone()
            }
            ("Fn::If", Value::Array(three)) => {
                return self.resolved(&three[if self.holds(text(&three[0])) { 1 } else { 2 }]);
            }
            other => panic!("no place for {other:?}"),
        })
    }

    fn named(&self, name: &str) -> String {
        match self.parameters.get(name) {
            Some(value) => value.clone(),
            None if name.starts_with("AWS::") => name.replace("AWS::", "").to_uppercase(),
            None => {
                assert!(self.template["Resources"].get(name).is_some(), "no {name}");
                name.to_owned()
            }
        }
    }

    fn filled(&self, pattern: &str, own: &Map<String, Value>) -> String {
        let mut parts = pattern.split("${");
        let mut out = parts.next().expect("a first part").to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').expect("a closed variable");
            match own.get(name) {
                Some(value) => out += text(value),
                None if name.contains('.') => out += name,
                None => out += &self.named(name),
            }
            out += rest;
        }
        out
    }

    fn holds(&self, name: &str) -> bool {
        self.decided(&self.template["Conditions"][name])
    }

    fn decided(&self, condition: &Value) -> bool {
        let (name, argument) = function(condition.as_object().expect("a condition")).expect("one");
        match name {
            "Fn::Not" => !self.decided(&argument[0]),
            "Fn::Equals" => self.resolved(&argument[0]) == self.resolved(&argument[1]),
            other => panic!("no place for {other}"),
        }
    }
}

fn function(pairs: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = pairs.iter().next().filter(|_| pairs.len() == 1)?;
    (name == "Ref" || name.starts_with("Fn::")).then_some((name.as_str(), argument))
}

/// `below`, overlaid with what is said in `above`.
fn merged(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            for (key, value) in above {
                let under = below.remove(&key).unwrap_or_default();
                below.insert(key, merged(under, value));
            }
            Value::Object(below)
        }
        (_, above) => above,
    }
}

/// The pairs of a map.
pub fn entries(map: &Value) -> impl Iterator<Item = (&str, &Value)> {
    map.as_object().expect("a map").iter().map(|(key, value)| (key.as_str(), value))
}

/// A text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// One text, or a list of them.
pub fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// A number.
pub fn number(value: &Value) -> f64 {
    text(value).parse().unwrap_or_else(|_| panic!("{value} is no number"))
}
