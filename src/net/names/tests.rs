//! The front with a resolver that answers as it is told, and a clock that moves as it is told.
