//! Git histories that must come out right: made with the real `git` program, played on the simulation and on the
//! sandbox, or on a real control plane where `LOCKTENDER_TEST_CLUSTER` says so, and compared with what the design says.
//!
//! Each history is written once, over a [`release::Release`]; `play!` makes the two tests of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

pub mod checkout;
mod disk;
mod judge;
pub mod live;
pub mod release;

/// Makes a test in each place of every history named.
macro_rules! play {
    ($($history:ident),+ $(,)?) => {
        mod simulation {
            $(
                #[tokio::test(start_paused = true)]
                async fn $history() {
                    super::$history($crate::histories::release::Place::Simulation).await;
                }
            )+
        }
        mod live {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $history() {
                    super::$history($crate::histories::release::Place::live()).await;
                }
            )+
        }
    };
}

mod aborts;
mod changes;
mod decisions;
mod immutable;
mod merges;
mod remote;
mod renderer;
mod reverts;
mod rights;
mod tenants;
