//! The real gateway program between two real Mosquittos: what it promises end to end.
//!
//! Each test runs three times: over MQTT, and as a component of either nucleus, for which a stand-in
//! connects to the cloud's Mosquitto. The cloud and the children are scripted MQTT peers, so that each test says exactly what they do
//! and when. Nothing waits for time to pass: every wait is for something, with a deadline.

#[path = "../support/mod.rs"]
mod support;

/// Runs tests over each link to the cloud.
macro_rules! over_each_link {
    ($($name:ident),* $(,)?) => {
        mod over_mqtt {
            $(#[tokio::test] async fn $name() { super::$name(crate::harness::Via::Mqtt).await; })*
        }
        mod under_classic {
            $(#[tokio::test] async fn $name() { super::$name(crate::harness::Via::Classic).await; })*
        }
        mod under_lite {
            $(#[tokio::test] async fn $name() { super::$name(crate::harness::Via::Lite).await; })*
        }
    };
}

/// Runs tests under each nucleus.
macro_rules! under_each_nucleus {
    ($($name:ident),* $(,)?) => {
        mod under_classic {
            $(#[tokio::test] async fn $name() { super::$name(crate::harness::Via::Classic).await; })*
        }
        mod under_lite {
            $(#[tokio::test] async fn $name() { super::$name(crate::harness::Via::Lite).await; })*
        }
    };
}

mod component;
mod core;
mod core_commands;
mod core_faults;
mod core_site;
mod crowd;
mod figures;
mod full;
mod harness;
mod hostile;
mod many;
mod nucleus;
mod outages;
mod peers;
mod proof;
mod rotation;
mod way;
