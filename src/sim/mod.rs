//! Simulation
