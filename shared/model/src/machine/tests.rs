//! The transitions told as stories, driven at random, and searched through in the small.

mod agents;
mod exhaustive;
mod line;
mod properties;
mod replay;
mod stories;
mod world;
