//! Routers that are told and asked over sockets of their own.

pub mod haproxy;
