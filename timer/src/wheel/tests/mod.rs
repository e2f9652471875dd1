//! The wheel beside an ordered map.

mod arena;
mod model;

mod against_a_map;
