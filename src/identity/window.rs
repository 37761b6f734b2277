//! When the nucleus may be restarted (`core.restartWindow`), such as `Sun 02:00-04:00`: weekly, by
//! local time.

/// Spans of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartWindow;
