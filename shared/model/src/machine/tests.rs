//! The transitions told as stories, driven at random, and searched through in the small.

mod exhaustive;
mod properties;
mod stories;
mod world;
