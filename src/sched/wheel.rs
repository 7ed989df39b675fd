//! Timing wheel
