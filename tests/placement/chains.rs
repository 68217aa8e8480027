//! later
use crate::world::World;
