//! Tests of choosing: one test for each rule, and decisions compared with a slow reference that looks at every exit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::balance::prefers;
use super::super::ban::Bans;
use super::super::event::{Cause, Event, Moved};
use super::super::fixture::*;
use super::super::policy::Policy;
use super::super::table::RouteTable;
use super::*;
use crate::exit::Verdict;
use crate::exit::load::{DialEffect, DialSpeed};
use crate::exit::policy::PortPolicy;

mod at_once;
mod free;
mod kept;
mod oracle;
mod pins;
mod rotation;
mod sessions;
mod sources;
