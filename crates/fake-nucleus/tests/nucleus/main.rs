//! What the stand-in promises: to be no kinder than the real nuclei.

mod both;
mod client;
mod official;
