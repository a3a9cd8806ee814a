//! The rules of choosing, one test a rule; and decisions against a slow reference that walks over everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::balance::prefers;
use super::super::event::{Cause, Event, Moved};
use super::super::explain::Why;
use super::super::fixture::*;
use super::super::policy::Policy;
use super::*;
use crate::exit::Verdict;
use crate::exit::load::{DialEffect, DialSpeed};
use crate::exit::policy::PortPolicy;

mod at_once;
mod free;
mod oracle;
mod pins;
mod rotation;
mod sessions;
