//! Locktender: a release controller for Kubernetes. *Merge to release. Commit to advance. Revert to roll back.*
//!
//! It watches a Git repository of manifests and policies, computes the difference to the live cluster, and carries it
//! out as a staged rollout. Git says what should run, how far a rollout may be, who allowed it, and what happened.
//!
//! # The picture
//!
//! ```text
//!                 decides                                    does
//!   ┌──────────────────────────────────┐      ┌──────────────────────────────────┐
//!   │ core                             │      │ adapter                          │
//!   │   manifest   what HEAD renders   │      │   git      a bare mirror, pushes │──▶ release repository
//!   │   policy     how it is released  │      │   kube     watches, applies      │──▶ API server
//!   │   rollout    plan, state, decide │      │   render   kustomize             │
//!   │   ledger     records, chain      │      │   ask      questions, over HTTP  │
//!   │   traffic    how it is shared    │      │   traffic  tells HAProxy         │
//!   └────────────────▲─────────────────┘      └────────────────▲─────────────────┘
//!                    │ calls                       as traits   │
//!                    │   ┌─────────────────────────────────┐   │
//!                    └───│ controller: observe → decide →  │───┘
//!                        │             act → record        │  moves
//!                        └────────────────▲────────────────┘
//!                                         │ wires together
//!                        ┌────────────────┴────────────────┐      ┌──────────────────────────────┐
//!                        │ cli                             │─────▶│ sandbox: a cluster in this   │
//!                        └─────────────────────────────────┘      │ process, over real HTTP      │
//!                                                                 └──────────────────────────────┘
//! ```
//!
//! [`server`] answers probes and scrapes beside the controller.
//!
//! Three verbs settle where code lives: [`core`] **decides**, [`adapter`] **does**, [`controller`] **moves**.
//! Imports point one way. `core` names only itself and crates without clock, thread, socket or file; `adapter` and
//! [`sandbox`] name `core`; `controller` names `core` and takes the adapters as the traits that lie there
//! ([`Repository`](core::repository::Repository), [`Cluster`](core::cluster::Cluster),
//! [`Renderer`](core::render::Renderer), [`Ask`](core::ask::Ask), [`Tell`](core::traffic::haproxy::Tell),
//! [`Clock`](core::clock::Clock)); [`cli`] wires it together. The SDK of an outside system is named in its adapter's folder
//! and nowhere else. A test reads every file and fails on any other arrow (`tests/suite/architecture`).
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | application | one directory of manifests that is released as a unit, with one policy |
//! | revision | a full commit id |
//! | digest | SHA-256 over what an application renders; a workload digest covers one pod template and the configuration that it reads: what is staged |
//! | target, stable | the digest that a rollout goes to; what the application last completed |
//! | rollout | one attempt to take an application from one digest to another: `checkout/0007` |
//! | plan | its stages, fixed when it opens, named by the plan hash |
//! | stage, gate | one batch; what must hold before the next |
//! | frontier | the first stage whose gates are not all open: pods may be as far as its quota |
//! | unit | a failure domain: the nodes that share one value of a label |
//! | handle, slice | a workload's Deployment, paused while we stage; one ReplicaSet a unit and workload digest, which owns the pods |
//! | record, decision | a journal entry, written by Locktender; a file by which a person says confirm, promote, abort, pause or retry |
//! | ledger | all plans, records and decisions |
//! | anchor | a ConfigMap beside the application: its last pushed record, and what could not be pushed yet. Without a policy objects name the record that they were written under |
//!
//! # The way of a commit
//!
//! One commit, `checkout 2.0`, through the folders, in the order *git → manifest → diff → rollout → kube → ledger*:
//!
//! 1. [`adapter::git`] notices that the branch moved (an event for a repository on this machine, else by asking) and
//!    fetches into its mirror.
//! 2. [`controller::source`] reads which paths changed, and the applications that they concern: [`core::yaml`] reads,
//!    [`core::policy`] and [`core::manifest`] turn it into types that cannot be wrong; a Kustomize directory goes
//!    through [`adapter::render`]. What is wrong becomes a [`Problem`](core::problem::Problem) with file, line and
//!    column, and stops that application only. [`controller::journals`] reads the records that are in Git's history,
//!    and of a journal that it knows what was appended.
//! 3. Meanwhile [`adapter::kube`] watches; [`core::rollout::view`] folds the events into a cache with the indexes that
//!    deciding needs.
//! 4. [`core::rollout::decide`] is one total function of all of that and the time: HEAD's workload digests are not
//!    stable's, so it fixes a [plan](core::rollout::plan) and asks for a record, `RolloutOpened`.
//! 5. [`controller::publish`] commits the records onto HEAD and pushes with compare-and-swap. When somebody was
//!    faster, nothing is rebased: it is fetched and decided again.
//! 6. The record is in Git, so the same function, called again, returns actions: what the cluster should be at the
//!    frontier, less what it is ([`core::diff`]). The controller lets [`adapter::kube`] do them; each carries the
//!    resource version that it was decided on. The pods' new state comes back as watch events.
//! 7. When every pod of the stage is good, the next record says that its confirm is missing, with the pods as
//!    evidence. A person's commit adds the file; it is read in step 2; and so on, until `Completed` names the new
//!    stable.
//!
//! Of several controllers one acts: [`controller::lease`] runs it while this process holds the leader lease, and the
//! [`controller::fence`] around both adapters lets nothing through afterwards.
//!
//! Going back is the same function: an abort, a revert or a failed stage changes where the frontier is, and the
//! difference to it is carried out. With Git away, going forward waits; going back is recorded in the
//! [anchor](controller::anchor) first and pushed later.
//!
//! # What always holds
//!
//! 1. No stage starts before every gate before it is open in the pushed ledger.
//! 2. No action of ours takes pods of the new version above the frontier's quota, in any unit.
//! 3. No action of ours takes pods in service below replicas − `maxUnavailable`, or, where stable is scaled down beside a
//!    canary, those of a side below what its share of the requests needs; or points traffic at a variant that is not ready.
//! 4. From every state an abort reaches stable, also with Git away.
//! 5. A restart at any point gives the same final state; no record is lost, doubled or out of order.
//! 6. Every change in the cluster is explained by a record: before it going forward, at the latest when Git is back
//!    going back. What somebody changed is put back under the records that made it stable, at once, and says so itself
//!    until that is recorded too. A record's evidence is true when it is written.
//! 7. An update in place changes no pod's name, UID, node or IP.
//! 8. Deciding is a function of its inputs: the same input gives the same bytes.
//!
//! The simulation (`tests/suite/simulation`) runs the whole controller, the same [`controller::run`] as in the binary,
//! on models of Git and cluster under a virtual clock, and checks these after every step. The same checker judges every
//! history that is played on the sandbox (`tests/suite/histories`).

pub mod adapter;
pub mod cli;
pub mod controller;
pub mod core;
pub mod sandbox;
pub mod server;
