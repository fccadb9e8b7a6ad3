//! PID 1.

pub mod config;
