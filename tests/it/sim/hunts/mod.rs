//! Scenarios after what is known to be broken: each with a control, the same without its fault.

mod a1;
mod a2;
mod a3;
mod a4;
mod a7;
mod b4;
mod b9;
mod c1;
mod c35;
mod far_brokers;
mod first_commits;
mod foreign;
mod holes;
mod late_commit;
mod old_filler;
mod s1;
mod thin_line;
mod twins;
mod unstored;
