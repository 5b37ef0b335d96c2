//! Scenarios after what is known to be broken: each with a control, the same without its fault.

mod a1;
mod a2;
mod a3;
mod a4;
mod a5;
mod a6;
mod a7;
mod b4;
mod b8;
mod b9;
mod c1;
mod c35;
mod far_brokers;
mod far_operator;
mod first_commits;
mod foreign;
mod holes;
mod late_commit;
mod old_filler;
mod pipeline;
mod policy;
mod s1;
mod thin_line;
mod twins;
mod unstored;
