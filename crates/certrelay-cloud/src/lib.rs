//! The cloud side of certrelay: `template.yaml` is what it consists of.
