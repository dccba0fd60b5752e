//! Transitions, told as stories.
