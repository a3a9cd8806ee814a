//! The model of the network.
