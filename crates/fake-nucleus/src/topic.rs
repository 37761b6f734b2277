//! MQTT topics and filters. Pure.

/// Whether a message on `topic` is for `filter`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let is_hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
    !is_hidden && covers(filter, topic)
}

/// Whether every topic of the filter `narrow` is one of `wide` too.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = narrow.split('/');
    for level in wide.split('/') {
        match (level, narrow.next()) {
            ("#", _) => return true,
            ("+", Some(other)) if other != "#" => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Whether it has a wildcard in it.
pub(crate) fn is_filter(topic: &str) -> bool {
    topic.contains(['+', '#'])
}

/// A topic that `filter` takes.
pub(crate) fn example(filter: &str) -> String {
    filter.replace(['+', '#'], "any")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_what_mqtt_says() {
        let yes = [("a/b", "a/b"), ("a/+", "a/b"), ("#", "a/b"), ("a/#", "a"), ("+/+", "/b")];
        let no = [("a/b", "a/c"), ("a/+", "a/b/c"), ("a/+", "a"), ("+", "$aws"), ("a", "a/")];
        for (filter, topic) in yes {
            assert!(matches(filter, topic), "{filter} {topic}");
            assert!(matches(filter, &example(filter)), "{filter}");
        }
        for (filter, topic) in no {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn a_filter_covers_the_narrower_ones() {
        let yes = [("#", "a/#"), ("a/+", "a/+"), ("a/+/c", "a/b/c"), ("+/#", "a/+")];
        let no = [("a/b", "a/+"), ("a/+", "a/#"), ("a/+", "a/b/#"), ("a", "#")];
        for (wide, narrow) in yes {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in no {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
