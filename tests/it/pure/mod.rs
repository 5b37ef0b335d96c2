//! No JVM: what is decided in this process or by `twinlog` alone.

mod alerts;
mod batch_core;
mod cli_exit_codes;
mod cli_run;
mod cli_table;
mod config_problems;
mod config_reference;
mod config_security;
mod config_values;
mod http_door;
mod http_server;
mod http_status;
mod load_laws;
mod offsets_map;
mod offsets_memory;
mod offsets_segments;
mod pages;
mod runbooks;
