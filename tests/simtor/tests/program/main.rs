//! The program as a process: beside a real tor, and in worlds of its own.

mod contract;
mod faults;
mod rig;
mod streams;
