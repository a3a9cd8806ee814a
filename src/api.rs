//! The control path: REST for people and programs that create, watch and destroy routes.
